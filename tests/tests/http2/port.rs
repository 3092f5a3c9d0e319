//! Ports under test, and a request that each of them answers with success.

use palisade_tests::Shop;

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, block, frame};

/// Port of a service.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) name: &'static str,
    pub(crate) address: String,
    is_grpc: bool,
}

/// Fields of a request.
pub(crate) type Fields = Vec<(&'static str, &'static str)>;

impl Port {
    /// Returns the three ports of the shop.
    pub(crate) fn all(shop: &Shop) -> [Self; 3] {
        [("gateway", shop.url(), false), ("products", shop.grpc_url("products"), true), ("orders", shop.grpc_url("orders"), true)].map(
            |(name, url, is_grpc)| {
                let address = url.strip_prefix("http://").expect("a port without TLS").to_owned();
                Self { name, address, is_grpc }
            },
        )
    }

    /// Fields of a request without a token: a health check.
    pub(crate) fn fields(&self) -> Fields {
        let (method, path) = if self.is_grpc { ("POST", "/grpc.health.v1.Health/Check") } else { ("GET", "/livez") };
        let mut fields = vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "test")];
        if self.is_grpc {
            fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
        }
        fields
    }

    /// Request body: an empty gRPC message, or no body.
    pub(crate) fn body(&self) -> &'static [u8] {
        if self.is_grpc { &[0; 5] } else { &[] }
    }

    /// Header block of the request.
    pub(crate) fn block(&self) -> Vec<u8> {
        block(&self.fields())
    }

    /// HEADERS of the request, without `END_STREAM`.
    pub(crate) fn open(&self, stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &self.block())
    }

    /// Complete request.
    pub(crate) fn request(&self, stream: u32) -> Vec<u8> {
        [self.open(stream), frame(DATA, END_STREAM, stream, self.body())].concat()
    }

    /// Complete request whose response has a body of at least seven bytes: of a health check, or of
    /// an error.
    pub(crate) fn request_with_response_body(&self, stream: u32) -> Vec<u8> {
        let mut fields = self.fields();
        if !self.is_grpc {
            fields.retain(|(name, _)| *name != ":path");
            fields.push((":path", "/unknown"));
        }
        self.request_of(stream, &block(&fields))
    }

    /// Complete request whose header block is `block`.
    pub(crate) fn request_of(&self, stream: u32, block: &[u8]) -> Vec<u8> {
        [frame(HEADERS, END_HEADERS, stream, block), frame(DATA, END_STREAM, stream, self.body())].concat()
    }

    /// Request of one HEADERS frame with these fields.
    pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
    }

    /// Request of one HEADERS frame with `additional` fields.
    pub(crate) fn with(&self, additional: &[(&'static str, &'static str)]) -> Vec<u8> {
        Self::headers(&[&self.fields(), additional].concat())
    }

    /// Request of one HEADERS frame without the field `name`.
    pub(crate) fn without(&self, name: &str) -> Vec<u8> {
        let mut fields = self.fields();
        fields.retain(|(field, _)| *field != name);
        Self::headers(&fields)
    }
}

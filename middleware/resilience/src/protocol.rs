//! Protocol of a hop: HTTP or gRPC.

use http::Method;

/// Protocol of the responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// JSON over HTTP; rejections become problem documents.
    Http,
    /// gRPC; rejections become statuses in trailers.
    Grpc,
}

impl Protocol {
    /// Label value of the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// Maps methods other than those of RFC 9110 and PATCH to `_OTHER` (semantic conventions), so that
/// clients cannot create series.
pub(crate) fn known_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}

//! HTTP request guard: rejects ambiguous requests (request smuggling) before any other layer
//! interprets them.
//!
//! hyper has already rejected invalid HTTP, merged equal `content-length` headers, and dropped a
//! `content-length` next to `transfer-encoding`. In the latter case it closes the connection, as
//! RFC 9112 §6.1 requires.

use http::{HeaderValue, Method, Request, Version, header};
use tower::Layer;

use palisade_resilience::{
    filter::{Filter, Predicate},
    rejection::{Reason, Rejection, reasons},
    respond::Protocol,
};

/// Status of RFC 9110 §10.1.1; the contract has no code of its own for it.
static EXPECTATION_FAILED: Reason = Reason::new(
    reasons::INVALID_PARAMETER.slug,
    http::StatusCode::EXPECTATION_FAILED,
    tonic::Code::InvalidArgument,
    reasons::INVALID_PARAMETER.title,
);

/// Rejects ambiguous HTTP requests and closes the connection, whose remaining bytes cannot be
/// trusted. gRPC passes unchecked.
#[derive(Debug, Clone, Copy)]
pub struct HttpGuardLayer(pub Protocol);

fn check<B>(request: &Request<B>) -> Result<(), Rejection> {
    if request.method() == Method::CONNECT {
        let refusal = Rejection::new(&reasons::METHOD_NOT_ALLOWED, "method CONNECT is not supported");
        return Err(refusal.with_header(header::ALLOW, HeaderValue::from_static("")));
    }
    check_coding(request)?;
    check_host(request)?;
    let is_unsupported = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.headers().get_all(header::EXPECT).iter().any(is_unsupported) {
        return Err(Rejection::new(&EXPECTATION_FAILED, "header expect must be 100-continue"));
    }
    Ok(())
}

/// hyper decodes `chunked` even as the last of several codings, or repeated (RFC 9112 §6.1, §7.1).
fn check_coding<B>(request: &Request<B>) -> Result<(), Rejection> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Rejection::new(&reasons::INVALID_PARAMETER, "header transfer-encoding must be a single chunked")),
    }
}

/// Requires a single host, equal to that of the request target (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn check_host<B>(request: &Request<B>) -> Result<(), Rejection> {
    let mut hosts = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let problem = match (target, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => "header host must not be given more than once",
        (Some(target), Some(host), None) if !target.eq_ignore_ascii_case(host) => "header host must equal the host of the request target",
        (Some(host), _, None) | (None, Some(host), None) if !is_host(host) => "header host is not a host name",
        (None, None, None) if request.version() > Version::HTTP_10 => "header host is missing",
        _ => return Ok(()),
    };
    Err(Rejection::new(&reasons::INVALID_PARAMETER, problem))
}

/// Checks the characters of `uri-host [ ":" port ]` (RFC 3986): no userinfo, path or whitespace.
fn is_host(host: &[u8]) -> bool {
    !host.is_empty() && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}

impl<S> Layer<S> for HttpGuardLayer {
    type Service = Filter<S, Self>;

    fn layer(&self, inner: S) -> Filter<S, Self> {
        Filter::new(inner, *self)
    }
}

impl Predicate for HttpGuardLayer {
    fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Rejection> {
        let checked = if self.0 == Protocol::Http { check(&request) } else { Ok(()) };
        let http1 = request.version() < Version::HTTP_2;
        let with_close = |rejection: Rejection| rejection.with_header(header::CONNECTION, HeaderValue::from_static("close"));
        checked.map_err(|rejection| if http1 { with_close(rejection) } else { rejection })?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn rejection_detail(version: Version, target: &str, headers: Headers<'_>) -> Option<String> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap()).err().map(|rejection| rejection.detail().to_owned())
    }

    #[test]
    fn requests_need_exactly_one_host() {
        let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
        let valid: [(Version, &str, Headers<'_>); 7] = [
            (h1, "/", &[("host", "shop.example:3000")]),
            (h1, "/", &[("host", "[::1]:3000")]),
            (h1, "http://shop.example/", &[("host", "Shop.example")]),
            (h1, "*", &[("host", "shop.example")]),
            (h2, "http://shop.example/", &[]),
            (h2, "/", &[("host", "shop.example")]),
            (Version::HTTP_10, "/", &[]),
        ];
        for (version, target, headers) in valid {
            assert_eq!(rejection_detail(version, target, headers), None, "{version:?} {target} {headers:?}");
        }
        let invalid: [(Version, &str, Headers<'_>, &str); 8] = [
            (h1, "/", &[], "missing"),
            (h2, "/", &[], "missing"),
            (h1, "/", &[("host", "")], "not a host"),
            (h1, "/", &[("host", "admin@shop.example")], "not a host"),
            (h1, "/", &[("host", "shop.example/path")], "not a host"),
            (h1, "/", &[("host", "a"), ("host", "a")], "more than once"),
            (h1, "http://a/", &[("host", "b")], "request target"),
            (h2, "http://a@b/", &[], "not a host"),
        ];
        for (version, target, headers, problem) in invalid {
            let refusal = rejection_detail(version, target, headers).unwrap_or_default();
            assert!(refusal.contains(problem), "{version:?} {target} {headers:?}: {refusal}");
        }
    }
}

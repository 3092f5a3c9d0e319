//! Malformed requests: RFC 9113 §8.

use crate::{
    case::{
        Case,
        Expected::{Malformed, Response, StreamError},
    },
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, PROTOCOL_ERROR, block, frame},
    port::Port,
};

/// Request with trailers.
fn with_trailers(port: &Port, trailers: &[(&str, &str)]) -> Vec<u8> {
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers));
    [port.open(1), frame(DATA, 0, 1, port.body()), trailers].concat()
}

/// Request with a field `content-length` and a body.
fn with_length(port: &Port, length: &'static str, body: &[u8]) -> Vec<u8> {
    let fields = [port.fields(), vec![("content-length", length)]].concat();
    [frame(HEADERS, END_HEADERS, 1, &block(&fields)), frame(DATA, END_STREAM, 1, body)].concat()
}

/// Request with the pseudo-header `name` set to `value`.
fn replaced(port: &Port, name: &str, value: &'static str) -> Vec<u8> {
    let mut fields = port.fields();
    fields.iter_mut().find(|(field, _)| *field == name).expect("a field of the request").1 = value;
    Port::headers(&fields)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = fields();
    cases.extend(pseudo_headers());
    cases.extend(bodies());
    cases
}

fn fields() -> Vec<Case> {
    vec![
        Case::new("8.2.1", "field name in upper case", |port| port.with(&[("X-Test", "ok")]), Malformed),
        Case::new("8.2.1", "field name with a blank", |port| port.with(&[("x test", "ok")]), Malformed),
        Case::new("8.2.1", "field name with a control character", |port| port.with(&[("x\u{1}test", "ok")]), Malformed),
        Case::new("8.2.1", "field name with a colon", |port| port.with(&[("x:test", "ok")]), Malformed),
        Case::new("8.2.1", "empty field name", |port| port.with(&[("", "ok")]), Malformed),
        Case::new("8.2.1", "field value with NUL", |port| port.with(&[("x-test", "o\0k")]), Malformed),
        Case::new("8.2.1", "field value with LF", |port| port.with(&[("x-test", "o\nk")]), Malformed),
        Case::new("8.2.1", "field value with CR", |port| port.with(&[("x-test", "o\rk")]), Malformed),
        Case::new("8.2.2", "connection", |port| port.with(&[("connection", "keep-alive")]), Malformed),
        Case::new("8.2.2", "transfer-encoding", |port| port.with(&[("transfer-encoding", "chunked")]), Malformed),
        Case::new("8.2.2", "upgrade", |port| port.with(&[("upgrade", "websocket")]), Malformed),
        Case::new("8.2.2", "keep-alive", |port| port.with(&[("keep-alive", "timeout=1")]), Malformed),
        Case::new("8.2.2", "proxy-connection", |port| port.with(&[("proxy-connection", "keep-alive")]), Malformed),
        Case::new("8.2.2", "te other than trailers", |port| port.with(&[("te", "gzip")]), Malformed),
    ]
}

fn pseudo_headers() -> Vec<Case> {
    vec![
        Case::new("8.3", "unknown pseudo-header", |port| Port::headers(&[&[(":test", "ok")][..], &port.fields()].concat()), Malformed),
        Case::new(
            "8.3",
            "pseudo-header of a response",
            |port| Port::headers(&[&[(":status", "200")][..], &port.fields()].concat()),
            Malformed,
        ),
        Case::new(
            "8.3",
            "pseudo-header after a field",
            |port| Port::headers(&[&[("x-test", "ok")][..], &port.fields()].concat()),
            Malformed,
        ),
        Case::new("8.3.1", "empty path", |port| replaced(port, ":path", ""), Malformed),
        Case::new("8.3.1", "no method", |port| port.without(":method"), Malformed),
        Case::new("8.3.1", "no scheme", |port| port.without(":scheme"), Malformed),
        Case::new("8.3.1", "no path", |port| port.without(":path"), Malformed),
        Case::new("8.3.1", "two methods", |port| Port::headers(&[&[(":method", "GET")][..], &port.fields()].concat()), Malformed),
        Case::new("8.3.1", "two schemes", |port| Port::headers(&[&[(":scheme", "http")][..], &port.fields()].concat()), Malformed),
        Case::new("8.3.1", "two paths", |port| Port::headers(&[&[(":path", "/")][..], &port.fields()].concat()), Malformed),
        Case::new("8.5", "CONNECT with scheme and path", |port| replaced(port, ":method", "CONNECT"), Malformed),
    ]
}

fn bodies() -> Vec<Case> {
    vec![
        Case::new("8.1", "trailers", |port| with_trailers(port, &[("x-test", "ok")]), Response(1)),
        Case::new("8.1", "second HEADERS that do not end the stream", |port| [port.open(1), port.open(1)].concat(), Malformed),
        Case::new("8.3", "pseudo-header in trailers", |port| with_trailers(port, &[(":method", "GET")]), Malformed),
        Case::new("8.1.1", "more DATA than content-length", |port| with_length(port, "1", &[0; 5]), StreamError(1, &[PROTOCOL_ERROR])),
        Case::new("8.1.1", "less DATA than content-length", |port| with_length(port, "9", &[0; 5]), StreamError(1, &[PROTOCOL_ERROR])),
        Case::new("8.1.1", "content-length without DATA", |port| port.with(&[("content-length", "1")]), StreamError(1, &[PROTOCOL_ERROR])),
    ]
}

//! HTTP/1 parsing: malformed, unusual and ambiguous requests (request smuggling).

use palisade_middleware::{respond::Protocol, server::Config};

use crate::fixture::{Server, statuses};

/// Sent bytes, expected statuses before the connection is closed, and executed requests.
type Row<'a> = (&'a str, Vec<u8>, &'a [u16], &'a [&'a str]);

/// Request to `/echo` with these additional header lines.
fn echo(lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    [format!("POST /echo HTTP/1.1\r\nhost: test\r\n{lines}\r\n").as_bytes(), body.as_ref()].concat()
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\n{lines}\r\n").into()
}

async fn check(rows: Vec<Row<'_>>) {
    let server = Server::start(Protocol::Http, Config::default());
    for (name, sent, expected, executed) in rows {
        let answer = server.exchange(&sent).await;
        assert_eq!(statuses(&answer), expected, "{name}: {answer}");
        assert_eq!(server.app.take_executed(), executed, "{name}");
    }
    assert!(server.is_serving().await);
}

/// The server closes the connection after each of these.
#[tokio::test]
async fn malformed_request_closes_connection() {
    let many = (0..65).fold(String::new(), |lines, n| lines + &format!("x-{n}: 1\r\n"));
    check(vec![
        ("two content-lengths", echo("content-length: 1\r\ncontent-length: 2\r\n", "ab"), &[400], &[]),
        ("a list of content-lengths", echo("content-length: 2, 2\r\n", "ab"), &[400], &[]),
        ("a negative content-length", echo("content-length: -1\r\n", ""), &[400], &[]),
        ("a content-length with a sign", echo("content-length: +3\r\n", "abc"), &[400], &[]),
        ("a content-length in hexadecimal", echo("content-length: 0x3\r\n", "abc"), &[400], &[]),
        ("a content-length of 2^64", echo("content-length: 18446744073709551616\r\n", ""), &[400], &[]),
        ("transfer-encoding: identity", echo("transfer-encoding: identity\r\n", "abc"), &[400], &[]),
        ("chunked is not the last coding", echo("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n"), &[400], &[]),
        ("blank before the colon", echo("transfer-encoding : chunked\r\n", "0\r\n\r\n"), &[400], &[]),
        ("chunks in HTTP/1.0", b"POST /echo HTTP/1.0\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), &[400], &[]),
        ("an invalid chunk size", echo("transfer-encoding: chunked\r\n", "zz\r\nabc\r\n0\r\n\r\n"), &[400], &[]),
        ("a chunk size of 2^64", echo("transfer-encoding: chunked\r\n", "10000000000000000\r\nabc\r\n0\r\n\r\n"), &[400], &[]),
        ("a chunk longer than its size", echo("transfer-encoding: chunked\r\n", "1\r\nabc\r\n0\r\n\r\n"), &[400], &[]),
        (
            "a chunk extension of 20 kB",
            echo("transfer-encoding: chunked\r\n", format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000))),
            &[400],
            &[],
        ),
        ("a folded header", get("host: test\r\nx-a: 1\r\n 2\r\n"), &[400], &[]),
        ("a blank in a header name", get("host: test\r\nx a: 1\r\n"), &[400], &[]),
        ("a control character in a header name", get("host: test\r\nx\x01a: 1\r\n"), &[400], &[]),
        ("a NUL in a header value", get("host: test\r\nx-a: a\0b\r\n"), &[400], &[]),
        ("a bare CR in a header value", get("host: test\r\nx-a: a\rx-b: b\r\n"), &[400], &[]),
        ("a header of 17 kB", get(&format!("host: test\r\nx-a: {}\r\n", "x".repeat(17_000))), &[431], &[]),
        ("more headers than 64", get(&format!("host: test\r\n{many}")), &[431], &[]),
        ("a target of 17 kB", format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "x".repeat(17_000)).into(), &[431], &[]),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\nhost: test\r\n\r\n".to_vec(), &[400], &[]),
        ("HTTP/1.2", b"GET / HTTP/1.2\r\nhost: test\r\n\r\n".to_vec(), &[400], &[]),
        ("http/1.1", b"GET / http/1.1\r\nhost: test\r\n\r\n".to_vec(), &[400], &[]),
        ("HTTP/0.9", b"GET /\r\n\r\n".to_vec(), &[400], &[]),
        ("a TLS ClientHello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03 and so on\r\n\r\n".to_vec(), &[400], &[]),
    ])
    .await;
}

/// Requests that hyper accepts but that are ambiguous.
#[tokio::test]
async fn ambiguous_request_is_rejected_and_closes() {
    let server = Server::start(Protocol::Http, Config::default());
    // Would be executed if the connection stayed open.
    let smuggled = "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let chunks = format!("0\r\n\r\n{smuggled}");
    let rows = [
        ("gzip below chunked", echo("transfer-encoding: gzip, chunked\r\n", &chunks), 400),
        ("chunked twice in one line", echo("transfer-encoding: chunked, chunked\r\n", &chunks), 400),
        ("chunked in two lines", echo("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", &chunks), 400),
        ("identity and chunked", echo("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", &chunks), 400),
        ("no host", [&get("")[..], smuggled.as_bytes()].concat(), 400),
        ("an empty host", [&get("host:\r\n")[..], smuggled.as_bytes()].concat(), 400),
        ("two hosts", [&get("host: a\r\nhost: b\r\n")[..], smuggled.as_bytes()].concat(), 400),
        ("the same host twice", [&get("host: a\r\nhost: a\r\n")[..], smuggled.as_bytes()].concat(), 400),
        ("userinfo in the host", [&get("host: admin@test\r\n")[..], smuggled.as_bytes()].concat(), 400),
        ("a path in the host", [&get("host: test/admin\r\n")[..], smuggled.as_bytes()].concat(), 400),
        ("another host in the target", format!("GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n{smuggled}").into(), 400),
        ("CONNECT", format!("CONNECT evil:443 HTTP/1.1\r\nhost: evil:443\r\n\r\n{smuggled}").into(), 405),
        ("an unknown expectation", [&get("host: test\r\nexpect: foo\r\n")[..], smuggled.as_bytes()].concat(), 417),
    ];
    for (name, sent, status) in rows {
        let answer = server.exchange(&sent).await;
        assert_eq!(statuses(&answer), [status], "{name}: {answer}");
        let mut headers = vec!["content-type: application/problem+json", "cache-control: no-store", "connection: close", "x-request-id: "];
        headers.extend((status == 405).then_some("allow: "));
        for header in headers {
            assert!(answer.contains(&format!("\r\n{header}")), "{name}: {header} is not in {answer}");
        }
        assert_eq!(server.app.take_executed(), [""; 0], "{name}");
    }
    assert!(server.is_serving().await);
}

/// Only one of two possible readings is executed.
#[tokio::test]
async fn smuggling_candidates_are_parsed_as_one_request() {
    let close = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let inner = "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
    let both = |lines: &str| echo(lines, format!("3\r\nabc\r\n0\r\n\r\n{inner}"));
    check(vec![
        // hyper merges them before any layer runs.
        (
            "equal content-lengths",
            echo("content-length: 3\r\ncontent-length: 3\r\n", format!("abc{close}")),
            &[200, 200],
            &["POST /echo 3", "GET / 0"],
        ),
        // RFC 9112 §6.3: the chunks win, and the connection must be closed.
        ("content-length, then chunks", both("content-length: 5\r\ntransfer-encoding: chunked\r\n"), &[200], &["POST /echo 3"]),
        ("chunks, then content-length", both("transfer-encoding: chunked\r\ncontent-length: 5\r\n"), &[200], &["POST /echo 3"]),
        ("a body above its content-length", echo("content-length: 3\r\n", "abc def\r\n\r\n"), &[200, 400], &["POST /echo 3"]),
        (
            "a request in the body of a GET",
            [&get(&format!("host: test\r\ncontent-length: {}\r\n", inner.len()))[..], inner.as_bytes(), close.as_bytes()].concat(),
            &[200, 200],
            &["GET / 54", "GET / 0"],
        ),
        (
            "a request in an unread body",
            [format!("GET /none HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", inner.len()).as_str(), inner, close].concat().into(),
            &[404, 200],
            &["GET / 0"],
        ),
        (
            "pipelined requests",
            [&echo("content-length: 1\r\n", "a")[..], &echo("transfer-encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"), close.as_bytes()]
                .concat(),
            &[200, 200, 200],
            &["POST /echo 1", "POST /echo 2", "GET / 0"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn unusual_but_valid_requests_succeed() {
    let close = "host: test\r\nconnection: close\r\n";
    let one_byte_chunks = "1\r\nx\r\n".repeat(20_000) + "0\r\n\r\n";
    let verb = |verb: &str, target: &str| format!("{verb} {target} HTTP/1.1\r\n{close}\r\n").into_bytes();
    check(vec![
        ("bare LF", b"GET / HTTP/1.1\nhost: test\nconnection: close\n\n".to_vec(), &[200], &["GET / 0"]),
        ("empty lines before", [b"\r\n\r\n", &get(close)[..]].concat(), &[200], &["GET / 0"]),
        ("HTTP/1.0 without a host", b"GET / HTTP/1.0\r\n\r\n".to_vec(), &[200], &["GET / 0"]),
        ("the host in the target", b"GET http://Test/ HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n".to_vec(), &[200], &["GET / 0"]),
        ("latin-1 in a header", [&get(close)[..get(close).len() - 2], b"x-name: \xe9t\xe9\r\n\r\n"].concat(), &[200], &["GET / 0"]),
        ("headers of 15 kB", get(&format!("{close}x-a: {}\r\n", "x".repeat(15_000))), &[200], &["GET / 0"]),
        ("an upgrade to HTTP/2", get(&format!("{close}upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n")), &[200], &["GET / 0"]),
        ("one-byte chunks", echo("connection: close\r\ntransfer-encoding: Chunked\r\n", one_byte_chunks), &[200], &["POST /echo 20000"]),
        ("OPTIONS *", verb("OPTIONS", "*"), &[404], &[]),
        ("TRACE", verb("TRACE", "/"), &[405], &[]),
        ("FROB", verb("FROB", "/"), &[405], &[]),
        ("100-continue", echo("connection: close\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n", "abc"), &[100, 200], &["POST /echo 3"]),
    ])
    .await;
}

#[tokio::test]
async fn oversized_content_length_is_rejected_before_body() {
    let server = Server::start(Protocol::Http, Config::default());
    for expect in ["", "expect: 100-continue\r\n"] {
        let head = format!("POST /limited HTTP/1.1\r\nhost: test\r\n{expect}content-length: 10000000000\r\n\r\n");
        let answer = server.exchange(head.as_bytes()).await;
        assert_eq!(statuses(&answer), [413], "{answer}");
    }
}

#[tokio::test]
async fn oversized_header_is_not_read() {
    let server = Server::start(Protocol::Http, Config::default());
    let answer = server.exchange(&get(&format!("host: test\r\nx-a: {}\r\n", "x".repeat(500_000)))).await;
    // The response may be lost: closing a connection with unread bytes resets it.
    assert!(["", "HTTP/1.1 431"].contains(&answer.get(..12).unwrap_or("")), "{answer}");
    assert_eq!(server.app.take_executed(), [""; 0]);
    assert!(server.is_serving().await);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(Protocol::Http, Config::default());
    let mut sent: Vec<u8> = (0..5_000).flat_map(|n| echo(&format!("content-length: {}\r\n", n % 10), "x".repeat(n % 10))).collect();
    sent.extend(get("host: test\r\nconnection: close\r\n"));
    assert_eq!(statuses(&server.exchange(&sent).await), [200; 5_001]);
    let ran = server.app.take_executed();
    assert!(ran[..5_000].iter().enumerate().all(|(n, ran)| *ran == format!("POST /echo {}", n % 10)));
}

#[tokio::test]
async fn grpc_port_accepts_only_http2() {
    let server = Server::start(Protocol::Grpc, Config::default());
    let answer = server.exchange(b"POST /test.Test/Call HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(statuses(&answer), [0; 0], "{answer}");
}

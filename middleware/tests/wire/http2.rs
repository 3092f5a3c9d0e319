//! HTTP/2 protocol violations, and denial-of-service attacks with valid frames.

use palisade_middleware::{respond::Protocol, server::Config};
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    fixture::{Server, TEST_TIMEOUT},
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, PING, PROTOCOL_ERROR, PUSH_PROMISE,
        REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, header_block, next, preface, request, until,
    },
};

const VALID_FIELDS: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/test.Test/Held")];

/// Window increment that overflows 2^31, because no initial window is 0.
const MAX_INCREMENT: [u8; 4] = 0x7fff_ffff_u32.to_be_bytes();

/// Sends `sent` and returns all frames until the server closes the connection.
async fn exchange(server: &Server, sent: &[u8]) -> Vec<Frame> {
    let (read, mut write) = tokio::io::split(server.connect().await);
    let mut read = tokio::io::join(read, tokio::io::sink());
    let mut received = Vec::new();
    let receive = async {
        while let Some(frame) = next(&mut read).await {
            received.push(frame);
        }
    };
    // A server that closes early does not read the rest.
    let both = async { drop(tokio::join!(write.write_all(sent), receive)) };
    timeout(TEST_TIMEOUT, both).await.expect("the connection is closed");
    received
}

/// Error code of the last `GOAWAY`.
fn goaway_code(got: &[Frame]) -> Option<u32> {
    got.iter().rfind(|frame| frame.kind == GOAWAY).map(Frame::code)
}

fn streams(count: u32, each: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|n| each(2 * n + 1)).collect()
}

#[tokio::test]
async fn frame_floods_end_in_enhance_your_calm() {
    let open = || frame(HEADERS, END_HEADERS, 1, &header_block(&VALID_FIELDS));
    let attacks: [(&str, Vec<u8>); 6] = [
        (
            "rapid reset (CVE-2023-44487)",
            streams(20_000, |id| [request(id, END_STREAM, "POST", "/test.Test/Held"), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()),
        ),
        (
            "server-sent resets, MadeYouReset (CVE-2025-8671)",
            streams(20_000, |id| [request(id, 0, "POST", "/test.Test/Held"), frame(WINDOW_UPDATE, 0, id, &MAX_INCREMENT)].concat()),
        ),
        (
            "CONTINUATION without end (CVE-2024-27316)",
            [frame(HEADERS, 0, 1, &header_block(&VALID_FIELDS)), frame(CONTINUATION, 0, 1, &[]).repeat(20_000)].concat(),
        ),
        (
            "headers of 100 kB",
            [
                frame(HEADERS, 0, 1, &header_block(&VALID_FIELDS)),
                frame(CONTINUATION, 0, 1, &header_block(&[("x-a", &"x".repeat(10_000))])).repeat(10),
            ]
            .concat(),
        ),
        ("empty DATA (RUSTSEC-2026-0258)", [open(), frame(DATA, 0, 1, &[]).repeat(200_000)].concat()),
        ("tiny DATA", [open(), frame(DATA, 0, 1, b"x").repeat(200_000)].concat()),
    ];
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let server = Server::start(protocol, Config::default());
        for (name, attack) in &attacks {
            let got = exchange(&server, &[preface(&[]), attack.clone()].concat()).await;
            assert_eq!(goaway_code(&got), Some(ENHANCE_YOUR_CALM), "{name}, {protocol:?}");
            assert!(got.len() < 1_200, "{name}: {} frames in response", got.len());
        }
        assert_serving(&server).await;
    }
}

#[tokio::test]
async fn protocol_violations_close_the_connection() {
    let done = || [request(1, END_STREAM, "POST", "/test.Test/Call"), request(3, END_STREAM, "POST", "/test.Test/Call")].concat();
    let rows: [(&str, Vec<u8>); 17] = [
        ("an even stream", request(2, END_STREAM, "POST", "/test.Test/Call")),
        ("HEADERS on stream 0", request(0, END_STREAM, "POST", "/test.Test/Call")),
        ("a stream with a lower number", [done(), request(1, END_STREAM, "POST", "/test.Test/Call")].concat()),
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"x")),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("half a setting", frame(SETTINGS, 0, 0, &[0, 4, 0])),
        ("an initial window above 2^31", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
        ("PUSH_PROMISE from a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("a PING of 7 bytes", frame(PING, 0, 0, &[0; 7])),
        ("a window opened by 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a window above 2^31", frame(WINDOW_UPDATE, 0, 0, &MAX_INCREMENT)),
        ("CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &header_block(&VALID_FIELDS))),
        ("another frame within a header block", [frame(HEADERS, 0, 1, &header_block(&VALID_FIELDS)), frame(PING, 0, 0, &[0; 8])].concat()),
        ("an index that the header table does not have", frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0x7f])),
        ("a frame of 17 kB", frame(DATA, 0, 1, &vec![0; 17_000])),
    ];
    let server = Server::start(Protocol::Grpc, Config::default());
    for (name, sent) in rows {
        let got = exchange(&server, &[preface(&[]), sent].concat()).await;
        // h2 uses PROTOCOL_ERROR for most violations, even where the RFC has a specific code.
        assert!(goaway_code(&got).is_some_and(|code| code != 0), "{name}: {got:?}");
    }
    assert_serving(&server).await;
}

/// Result of one invalid request.
#[derive(Debug, PartialEq)]
enum Outcome {
    Connection,
    Reset(u32),
    Status(u16),
}

#[tokio::test]
async fn malformed_http2_request_is_not_executed() {
    use Outcome::{Connection, Reset, Status};
    let fields = |change: &[(&'static str, &'static str)], more: &[(&'static str, &'static str)]| {
        let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/")];
        for (name, value) in change {
            fields.iter_mut().find(|(field, _)| field == name).unwrap().1 = *value;
        }
        // "-" removes the field.
        fields.retain(|(_, value)| *value != "-");
        fields.extend(more);
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &header_block(&fields))
    };
    let with = |more: &[(&'static str, &'static str)]| fields(&[], more);
    let long: &'static str = "x".repeat(10_000).leak();
    let more = frame(CONTINUATION, END_HEADERS, 1, &header_block(&[("x-a", long)]));
    let long = [frame(HEADERS, END_STREAM, 1, &header_block(&[&VALID_FIELDS[..], &[("x-b", long)]].concat())), more].concat();
    let open_request = open_request();
    let rows: Vec<(&str, Vec<u8>, Outcome)> = vec![
        ("connection", with(&[("connection", "close")]), Reset(PROTOCOL_ERROR)),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), Reset(PROTOCOL_ERROR)),
        ("te other than trailers", with(&[("te", "gzip")]), Reset(PROTOCOL_ERROR)),
        ("upper case", with(&[("X-A", "1")]), Connection),
        ("a line break in a value", with(&[("x-a", "1\r\nx-b: 2")]), Connection),
        ("an unknown pseudo-header", with(&[(":frob", "1")]), Connection),
        ("a pseudo-header after a field", with(&[("x-a", "1"), (":path", "/")]), Reset(PROTOCOL_ERROR)),
        ("a pseudo-header twice", with(&[(":path", "/echo")]), Reset(PROTOCOL_ERROR)),
        (":status in a request", with(&[(":status", "200")]), Reset(PROTOCOL_ERROR)),
        ("an empty path", fields(&[(":path", "")], &[]), Reset(PROTOCOL_ERROR)),
        ("no path", fields(&[(":path", "-")], &[]), Reset(PROTOCOL_ERROR)),
        ("no method", fields(&[(":method", "-")], &[]), Reset(PROTOCOL_ERROR)),
        ("no scheme", fields(&[(":scheme", "-")], &[]), Reset(PROTOCOL_ERROR)),
        ("an odd scheme", fields(&[(":scheme", "java script")], &[]), Reset(PROTOCOL_ERROR)),
        ("a blank in the authority", fields(&[(":authority", "a b")], &[]), Reset(PROTOCOL_ERROR)),
        ("userinfo in the authority", fields(&[(":authority", "admin@test")], &[]), Status(400)),
        ("no authority", fields(&[(":authority", "-")], &[]), Status(400)),
        ("another host than the authority", with(&[("host", "other")]), Status(400)),
        ("two hosts", with(&[("host", "test"), ("host", "test")]), Status(400)),
        ("CONNECT", fields(&[(":method", "CONNECT"), (":scheme", "-"), (":path", "-")], &[]), Status(405)),
        ("TRACE", fields(&[(":method", "TRACE")], &[]), Status(405)),
        ("an unknown expectation", with(&[("expect", "foo")]), Status(417)),
        ("headers of 20 kB", long, Status(431)),
        ("headers of 20 kB in many fields", with(&[("x-a", ""); 600]), Status(431)),
        ("more DATA than the length", [&open_request[..], &frame(DATA, END_STREAM, 1, b"123456")].concat(), Reset(PROTOCOL_ERROR)),
        ("less DATA than the length", [&open_request[..], &frame(DATA, END_STREAM, 1, b"1234")].concat(), Reset(PROTOCOL_ERROR)),
    ];
    let server = Server::start(Protocol::Http, Config::default());
    for (name, sent, expected) in rows {
        let mut stream = server.connect().await;
        stream.write_all(&[preface(&[]), sent].concat()).await.unwrap();
        let end = until(&mut stream, |frame| frame.stream == 1 && [HEADERS, RST_STREAM].contains(&frame.kind));
        let end = match timeout(TEST_TIMEOUT, end).await.unwrap_or_else(|_| panic!("{name}: no response")) {
            None => Connection,
            Some(end) if end.kind == RST_STREAM => Reset(end.code()),
            Some(end) => Status(end.status()),
        };
        assert_eq!(end, expected, "{name}");
        assert_eq!(server.app.take_executed(), [""; 0], "{name}");
        if expected != Connection {
            stream.write_all(&request(3, END_STREAM, "GET", "/")).await.unwrap();
            let other = timeout(TEST_TIMEOUT, until(&mut stream, |frame| frame.stream == 3)).await.unwrap();
            assert!(other.is_some_and(|frame| frame.kind == HEADERS), "{name}: the connection is closed");
            server.app.take_executed();
        }
    }
}

/// Headers of a request with a body of five bytes.
fn open_request() -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/echo"), ("content-length", "5")];
    frame(HEADERS, END_HEADERS, 1, &header_block(&fields))
}

#[tokio::test]
async fn pseudo_headers_in_trailers_are_ignored() {
    let server = Server::start(Protocol::Http, Config::default());
    let mut stream = server.connect().await;
    // Malformed by RFC 9113 §8.1; h2 drops the pseudo-headers and continues.
    let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &header_block(&[(":method", "GET"), (":path", "/")]));
    stream.write_all(&[preface(&[]), open_request(), frame(DATA, 0, 1, b"12345"), trailers].concat()).await.unwrap();
    timeout(TEST_TIMEOUT, until(&mut stream, |frame| frame.kind == HEADERS)).await.unwrap().unwrap();
    assert_eq!(server.app.take_executed(), ["POST /echo 5"]);
}

#[tokio::test]
async fn streams_above_the_limit_get_refused_stream() {
    let mut config = Config::default();
    // One caller does not get all of the adaptive limit.
    config.adaptive_limit.enabled = false;
    let server = Server::start(Protocol::Grpc, config);
    let mut stream = server.connect().await;
    // Sent before the server's SETTINGS limit the streams.
    let requests = streams(300, |id| request(id, END_STREAM, "POST", "/test.Test/Held"));
    stream.write_all(&[preface(&[]), requests].concat()).await.unwrap();
    let mut refused = 0;
    while refused < 300 - 256 {
        let frame = timeout(TEST_TIMEOUT, next(&mut stream)).await.unwrap().unwrap();
        assert_eq!((frame.kind, frame.code()), (RST_STREAM, REFUSED_STREAM));
        refused += 1;
    }
    server.app.held(256).await;
    server.app.release.add_permits(256);
    for _ in 0..256 {
        timeout(TEST_TIMEOUT, until(&mut stream, |frame| frame.kind == HEADERS)).await.unwrap().unwrap();
    }
    stream.write_all(&request(601, END_STREAM, "POST", "/test.Test/Call")).await.unwrap();
    timeout(TEST_TIMEOUT, until(&mut stream, |frame| frame.stream == 601)).await.unwrap().unwrap();
}

/// Asserts that a new connection is served.
async fn assert_serving(server: &Server) {
    let mut stream = server.connect().await;
    stream.write_all(&[preface(&[]), request(1, END_STREAM, "POST", "/test.Test/Call")].concat()).await.unwrap();
    let answer = timeout(TEST_TIMEOUT, until(&mut stream, |frame| frame.kind == HEADERS)).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
}

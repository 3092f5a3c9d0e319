//! Server timeouts against slow clients (slowloris, slow read), with a paused clock: each
//! connection closes at its timeout, and not before.

use std::time::Duration;

use palisade_middleware::{respond::Protocol, server::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::{
    fixture::{BIG_BYTES, MemoryConnection},
    frames::{DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, frame, preface, request, until},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// Default limits, but practically unlimited request deadlines.
pub(crate) fn without_deadlines() -> Config {
    Config { default_deadline_ms: 3_600_000, max_deadline_ms: 3_600_000, body_read_timeout_ms: 3_600_000, ..Config::default() }
}

#[track_caller]
pub(crate) fn assert_took(started: Instant, seconds: std::ops::Range<u64>, about: &str) {
    let took = started.elapsed();
    assert!(seconds.contains(&took.as_secs()), "{about}: {took:?} is not in {seconds:?} s");
}

/// Reads one response with the body `ok`.
pub(crate) async fn answer(line: &mut MemoryConnection) -> String {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\nok") {
        assert_ne!(line.client.read_buf(&mut received).await.unwrap(), 0, "{}", String::from_utf8_lossy(&received));
    }
    String::from_utf8(received).unwrap()
}

#[tokio::test(start_paused = true)]
async fn first_request_timeout_closes_connection() {
    let magic = &preface(&[])[..24];
    let handshake = preface(&[]);
    let half_request = [&handshake[..], &frame(HEADERS, 0, 1, b"\x82")].concat();
    let rows: [(&str, Protocol, &[u8]); 9] = [
        ("silence", Protocol::Http, b""),
        ("half a preface", Protocol::Http, b"PRI * HTTP/2.0\r\n"),
        ("half a header", Protocol::Http, b"GET / HTTP/1.1\r\nhos"),
        ("a preface without settings", Protocol::Http, magic),
        ("a handshake and no request", Protocol::Http, &handshake),
        ("half a header block", Protocol::Http, &half_request),
        ("silence", Protocol::Grpc, b""),
        ("half a preface", Protocol::Grpc, b"PRI"),
        ("a handshake and no request", Protocol::Grpc, &handshake),
    ];
    for (name, protocol, sent) in rows {
        let mut line = MemoryConnection::open(protocol, &Config::default());
        let opened = Instant::now();
        line.client.write_all(sent).await.unwrap();
        line.closed().await;
        assert_took(opened, 10..11, name);
    }
}

#[tokio::test(start_paused = true)]
async fn header_read_timeout_closes_slow_headers() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    let opened = Instant::now();
    let trickle = async {
        while line.client.write_all(b"x").await.is_ok() {
            sleep(SECOND).await;
        }
    };
    trickle.await;
    assert_took(opened, 10..12, "first request");

    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    line.client.write_all(GET).await.unwrap();
    answer(&mut line).await;
    let sent_at = Instant::now();
    while line.client.write_all(b"x").await.is_ok() {
        sleep(SECOND).await;
    }
    assert_took(sent_at, 10..12, "later request");
}

#[tokio::test(start_paused = true)]
async fn idle_timeout_closes_connection() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    line.client.write_all(GET).await.unwrap();
    answer(&mut line).await;
    let sent_at = Instant::now();
    line.closed().await;
    assert_took(sent_at, 75..76, "HTTP/1");

    // HTTP/2 may idle, but must answer pings.
    let mut line = MemoryConnection::open(Protocol::Grpc, &Config::default());
    line.client.write_all(&[preface(&[]), request(1, END_STREAM, "POST", "/test.Test/Call")].concat()).await.unwrap();
    until(&mut line.client, |frame| frame.kind == HEADERS).await.unwrap();
    let sent_at = Instant::now();
    line.closed().await;
    assert_took(sent_at, 30..31, "peer without ping acknowledgement");
}

#[tokio::test(start_paused = true)]
async fn flow_control_timeout_resets_only_its_stream() {
    let mut line = MemoryConnection::open(Protocol::Http, &without_deadlines());
    let no_window = [(4, 0)];
    line.client.write_all(&[preface(&no_window), request(1, END_STREAM, "GET", "/big")].concat()).await.unwrap();
    let sent_at = Instant::now();
    let reset = until(&mut line.client, |frame| frame.kind == RST_STREAM).await.unwrap();
    assert_eq!(reset.stream, 1);
    assert_took(sent_at, 30..31, "no window");

    let other = [request(3, END_STREAM, "GET", "/"), frame(WINDOW_UPDATE, 0, 3, &100_u32.to_be_bytes())].concat();
    line.client.write_all(&other).await.unwrap();
    let data = until(&mut line.client, |frame| frame.kind == DATA).await.unwrap();
    assert_eq!((data.stream, data.payload.as_slice()), (3, &b"ok"[..]));
}

#[tokio::test(start_paused = true)]
async fn slow_window_updates_keep_the_stream_open() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config { max_connection_age_ms: 0, ..without_deadlines() });
    let mut received = 0;
    // Also widens the connection window.
    let wide = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    line.client.write_all(&[preface(&[(4, 0)]), wide, request(1, END_STREAM, "GET", "/big")].concat()).await.unwrap();
    until(&mut line.client, |frame| frame.kind == HEADERS).await.unwrap();
    while received < BIG_BYTES {
        // Pings are answered meanwhile.
        assert!(timeout(25 * SECOND, until(&mut line.client, |_| true)).await.is_err(), "no data without window");
        let increment = 1_000_000.min(BIG_BYTES - received);
        line.client.write_all(&frame(WINDOW_UPDATE, 0, 1, &u32::try_from(increment).unwrap().to_be_bytes())).await.unwrap();
        let expected = received + increment;
        while received < expected {
            received += until(&mut line.client, |frame| frame.kind == DATA).await.expect("the stream is not reset").payload.len();
        }
    }
    assert_eq!(received, BIG_BYTES);
}

#[tokio::test(start_paused = true)]
async fn max_connection_age_drains_busy_connection() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    let opened = Instant::now();
    // An idle connection is closed at its maximum age; with a request in flight, its response is
    // the last.
    while line.client.write_all(GET).await.is_ok() {
        let last = answer(&mut line).await.contains("connection: close");
        if last || timeout(SECOND, line.closed()).await.is_ok() {
            break;
        }
    }
    assert_took(opened, 270..331, "HTTP/1");

    let mut line = MemoryConnection::open(Protocol::Grpc, &without_deadlines());
    let opened = Instant::now();
    line.client.write_all(&[preface(&[]), request(1, END_STREAM, "POST", "/test.Test/Held")].concat()).await.unwrap();
    until(&mut line.client, |frame| frame.kind == GOAWAY).await.unwrap();
    assert_took(opened, 270..331, "HTTP/2");
    // The call in flight still succeeds.
    line.app.release.add_permits(1);
    assert_eq!(until(&mut line.client, |frame| frame.kind == HEADERS).await.unwrap().stream, 1);
    until(&mut line.client, |_| false).await;
    line.closed().await;
    assert_took(opened, 270..331, "the end");
}

#[tokio::test(start_paused = true)]
async fn max_age_grace_closes_undrained_connection() {
    // The request outlives every deadline known to the connection.
    let mut line = MemoryConnection::open_around(Protocol::Grpc, &Config::default(), &without_deadlines());
    let opened = Instant::now();
    line.client.write_all(&[preface(&[]), request(1, END_STREAM, "POST", "/test.Test/Held")].concat()).await.unwrap();
    until(&mut line.client, |_| false).await;
    line.closed().await;
    assert_took(opened, 300..361, "maximum age and grace period");
}

//! Clients that take their time, on a paused clock: each is let go when its limit says so, and not before.

use std::time::Duration;

use palisade_middleware::{respond::Protocol, server::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::{
    app::{BIG_BYTES, MemoryConnection, statuses},
    frames::{DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, frame, preface, request, until},
};

const SECOND: Duration = Duration::from_secs(1);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// Limits as they are, except that a request may take for ever.
fn without_deadlines() -> Config {
    Config { default_deadline_ms: 3_600_000, max_deadline_ms: 3_600_000, ..Config::default() }
}

#[track_caller]
fn assert_took(started: Instant, seconds: std::ops::Range<u64>, about: &str) {
    let took = started.elapsed();
    assert!(seconds.contains(&took.as_secs()), "{about}: {took:?} is not in {seconds:?} s");
}

/// Reads one answer with the body `ok`.
async fn answer(line: &mut MemoryConnection) -> String {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\nok") {
        assert_ne!(line.client.read_buf(&mut received).await.unwrap(), 0, "{}", String::from_utf8_lossy(&received));
    }
    String::from_utf8(received).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed_after_ten_seconds() {
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
async fn a_header_that_trickles_is_not_waited_for() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    let opened = Instant::now();
    let trickle = async {
        while line.client.write_all(b"x").await.is_ok() {
            sleep(SECOND).await;
        }
    };
    trickle.await;
    assert_took(opened, 10..12, "the first");

    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    line.client.write_all(GET).await.unwrap();
    answer(&mut line).await;
    let sent_at = Instant::now();
    while line.client.write_all(b"x").await.is_ok() {
        sleep(SECOND).await;
    }
    assert_took(sent_at, 30..32, "a later one");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    line.client.write_all(GET).await.unwrap();
    answer(&mut line).await;
    let sent_at = Instant::now();
    line.closed().await;
    assert_took(sent_at, 30..31, "HTTP/1");

    // HTTP/2 may idle, but must answer pings.
    let mut line = MemoryConnection::open(Protocol::Grpc, &Config::default());
    line.client.write_all(&[preface(&[]), request(1, END_STREAM, "POST", "/test.Test/Call")].concat()).await.unwrap();
    until(&mut line.client, |frame| frame.kind == HEADERS).await.unwrap();
    let sent_at = Instant::now();
    line.closed().await;
    assert_took(sent_at, 30..31, "a peer that answers no ping");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_has_until_the_deadline() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    let sent_at = Instant::now();
    line.client.write_all(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
    while line.client.write_all(b"x").await.is_ok() {
        sleep(SECOND).await;
    }
    assert_took(sent_at, 10..12, "the body");
    let mut got = String::new();
    line.client.read_to_string(&mut got).await.unwrap();
    assert_eq!((statuses(&got), line.app.take_executed()), (vec![504], vec![]));
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_the_answer_is_cut_and_who_takes_a_little_is_not() {
    let big = b"GET /big HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut line = MemoryConnection::open(Protocol::Http, &without_deadlines());
    line.client.write_all(big).await.unwrap();
    let sent_at = Instant::now();
    line.closed().await;
    assert_took(sent_at, 30..31, "nothing was taken");

    let mut line = MemoryConnection::open(Protocol::Http, &without_deadlines());
    line.client.write_all(big).await.unwrap();
    for _ in 0..12 {
        assert!(timeout(20 * SECOND, line.closed()).await.is_err(), "something was taken");
        line.client.read_exact(&mut [0; 100]).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_window_is_reset_and_the_others_go_on() {
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
async fn a_stream_whose_window_opens_slowly_is_read_to_its_end() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config { max_connection_age_ms: 0, ..without_deadlines() });
    let mut received = 0;
    // The connection's window counts too.
    let wide = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    line.client.write_all(&[preface(&[(4, 0)]), wide, request(1, END_STREAM, "GET", "/big")].concat()).await.unwrap();
    until(&mut line.client, |frame| frame.kind == HEADERS).await.unwrap();
    while received < BIG_BYTES {
        // Pings are answered meanwhile.
        assert!(timeout(25 * SECOND, until(&mut line.client, |_| true)).await.is_err(), "nothing comes without window");
        let increment = 1_000_000.min(BIG_BYTES - received);
        line.client.write_all(&frame(WINDOW_UPDATE, 0, 1, &u32::try_from(increment).unwrap().to_be_bytes())).await.unwrap();
        let expected = received + increment;
        while received < expected {
            received += until(&mut line.client, |frame| frame.kind == DATA).await.expect("it is not reset").payload.len();
        }
    }
    assert_eq!(received, BIG_BYTES);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_uses_its_connection_is_asked_to_go_after_five_minutes() {
    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    let opened = Instant::now();
    // Idle when the time comes, it is closed; with a request under way, that one is the last.
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
    // The call under way is answered.
    line.app.release.add_permits(1);
    assert_eq!(until(&mut line.client, |frame| frame.kind == HEADERS).await.unwrap().stream, 1);
    until(&mut line.client, |_| false).await;
    line.closed().await;
    assert_took(opened, 270..331, "the end");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_go_is_cut_when_no_request_can_be_under_way_any_more() {
    // Something goes on beyond every deadline that the connection knows of.
    let mut line = MemoryConnection::open_around(Protocol::Grpc, &Config::default(), &without_deadlines());
    let opened = Instant::now();
    line.client.write_all(&[preface(&[]), request(1, END_STREAM, "POST", "/test.Test/Held")].concat()).await.unwrap();
    until(&mut line.client, |_| false).await;
    line.closed().await;
    assert_took(opened, 300..361, "five minutes and the longest deadline");
}

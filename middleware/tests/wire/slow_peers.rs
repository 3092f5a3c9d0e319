//! Slow peers: minimum data rates, unread responses, and early responses that reach their client.

use palisade_middleware::{
    respond::Protocol,
    server::{
        Config,
        accept::{Linger, WaitingBytes},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::{
    fixture::{BIG_BYTES, MemoryConnection, Server, TEST_TIMEOUT, statuses},
    frames::{DATA, END_STREAM, HEADERS, RST_STREAM, frame, preface, request, until},
    timeouts::{SECOND, answer, assert_took, without_deadlines},
};

#[tokio::test(start_paused = true)]
async fn slow_request_body_is_cut_off() {
    for (bytes, seconds) in [(0, 5..6), (1, 5..6), (120, 9..11)] {
        let mut line = MemoryConnection::open(Protocol::Http, &without_deadlines());
        let sent_at = Instant::now();
        line.client.write_all(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
        let (mut read, mut write) = tokio::io::split(&mut line.client);
        let send = async {
            while write.write_all(&vec![b'x'; bytes]).await.is_ok() {
                sleep(SECOND).await;
            }
        };
        let mut got = String::new();
        tokio::select! {
            read = read.read_to_string(&mut got) => { read.unwrap(); }
            () = send => {}
        }
        assert_took(sent_at, seconds, &format!("{bytes} bytes a second"));
        let executed = line.app.take_executed();
        assert_eq!((statuses(&got).len(), executed), (1, vec![]), "{got}");
        line.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn steady_request_body_is_received() {
    let mut line = MemoryConnection::open(Protocol::Http, &without_deadlines());
    line.client.write_all(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 30000\r\n\r\n").await.unwrap();
    for _ in 0..30 {
        sleep(4 * SECOND).await;
        line.client.write_all(&[b'x'; 1_000]).await.unwrap();
    }
    answer(&mut line).await;
    assert_eq!(line.app.take_executed(), ["POST /echo 30000"]);
}

#[tokio::test(start_paused = true)]
async fn slow_body_over_http2_ends_only_its_stream() {
    let mut line = MemoryConnection::open(Protocol::Http, &without_deadlines());
    line.client.write_all(&[preface(&[]), request(1, 0, "POST", "/echo")].concat()).await.unwrap();
    let sent_at = Instant::now();
    let head = until(&mut line.client, |frame| frame.kind == HEADERS).await.unwrap();
    assert_eq!(head.stream, 1);
    assert_took(sent_at, 5..6, "no body");
    line.client.write_all(&request(3, END_STREAM, "GET", "/")).await.unwrap();
    assert_eq!(until(&mut line.client, |frame| frame.kind == HEADERS && frame.stream == 3).await.unwrap().status(), 200);
    assert!(line.app.take_executed().iter().all(|executed| executed == "GET / 0"));
}

#[tokio::test(start_paused = true)]
async fn quiet_grpc_stream_is_no_slow_body() {
    let mut line = MemoryConnection::open(Protocol::Grpc, &Config { max_connection_age_ms: 0, ..without_deadlines() });
    line.client.write_all(&[preface(&[]), request(1, 0, "POST", "/test.Test/Read")].concat()).await.unwrap();
    let message = frame(DATA, 0, 1, b"\0\0\0\0\x02ab");
    for _ in 0..3 {
        let quiet = timeout(60 * SECOND, until(&mut line.client, |frame| frame.kind == RST_STREAM || frame.kind == HEADERS));
        assert!(quiet.await.is_err(), "silence between messages");
        line.client.write_all(&message).await.unwrap();
    }
    let sent_at = Instant::now();
    line.client.write_all(&frame(DATA, 0, 1, b"\0\0\0\0\x02a")).await.unwrap();
    until(&mut line.client, |frame| frame.kind == HEADERS).await.unwrap();
    assert_took(sent_at, 5..6, "an incomplete message");
}

#[tokio::test(start_paused = true)]
async fn write_timeout_closes_slow_readers() {
    let big = b"GET /big HTTP/1.1\r\nhost: test\r\n\r\n";
    for (bytes, seconds) in [(0, 30..31), (100, 30..32)] {
        let mut line = MemoryConnection::open(Protocol::Http, &without_deadlines());
        line.client.write_all(big).await.unwrap();
        let sent_at = Instant::now();
        while timeout(20 * SECOND, line.closed()).await.is_err() {
            line.client.read_exact(&mut vec![0; bytes]).await.unwrap();
        }
        assert_took(sent_at, seconds, &format!("{bytes} bytes every 20 seconds"));
    }

    let mut line = MemoryConnection::open(Protocol::Http, &Config { max_connection_age_ms: 0, ..without_deadlines() });
    line.client.write_all(big).await.unwrap();
    for _ in 0..12 {
        assert!(timeout(20 * SECOND, line.closed()).await.is_err(), "enough was read");
        line.client.read_exact(&mut [0; 4_800]).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_bytes_close_a_reader_that_stalls() {
    let with = |max| {
        let waiting_bytes = WaitingBytes { max, ..WaitingBytes::default() };
        let line = MemoryConnection::open(Protocol::Http, &Config { waiting_bytes, ..without_deadlines() });
        (line, Instant::now())
    };
    let big = b"GET /big HTTP/1.1\r\nhost: test\r\n\r\n";
    let (mut line, opened) = with(BIG_BYTES / 2);
    line.client.write_all(big).await.unwrap();
    line.closed().await;
    assert_took(opened, 0..2, "above the limit");

    let (mut line, opened) = with(BIG_BYTES + BIG_BYTES / 2);
    line.client.write_all(big).await.unwrap();
    line.closed().await;
    assert_took(opened, 1..3, "above half of the limit");

    // A reader that makes progress is served.
    let (mut line, opened) = with(BIG_BYTES + BIG_BYTES / 2);
    line.client.write_all(big).await.unwrap();
    let mut left = BIG_BYTES;
    while left > 0 {
        sleep(SECOND / 2).await;
        let mut chunk = vec![0; 512 * 1024];
        for part in chunk.chunks_mut(32 * 1024) {
            let read = timeout(SECOND, line.client.read(part)).await.expect("the connection is not stalled").unwrap();
            assert!(read > 0, "closed after {:?} with {left} bytes left", opened.elapsed());
            left = left.saturating_sub(read);
        }
    }
}

#[tokio::test]
async fn early_response_reaches_a_client_that_sends_its_body() {
    let server = Server::start(Protocol::Http, Config::default());
    let body = vec![b'x'; 5_000_000];
    let oversized = format!("POST /limited HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len());
    let malformed = format!("GET / HTTP/1.1\r\nhost: test\r\nx-a: {}", "x".repeat(20_000));
    for (head, status) in [(oversized, 413), (malformed, 431)] {
        for round in 0..20 {
            let mut stream = server.connect().await;
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap_or_else(|error| panic!("{status}, round {round}: {error}"));
            stream.shutdown().await.unwrap();
            let mut received = String::new();
            timeout(TEST_TIMEOUT, stream.read_to_string(&mut received)).await.unwrap().unwrap();
            assert_eq!(statuses(&received), [status], "round {round}");
        }
    }
    assert!(server.app.take_executed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn lingering_close_is_bounded() {
    let head = b"POST /limited HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000000\r\n\r\n";
    let mut line = MemoryConnection::open(Protocol::Http, &Config::default());
    let sent_at = Instant::now();
    line.client.write_all(head).await.unwrap();
    line.closed().await;
    assert_took(sent_at, 5..6, "a silent client");

    let linger = Linger { max_bytes: 100_000, ..Linger::default() };
    let mut line = MemoryConnection::open(Protocol::Http, &Config { linger, ..Config::default() });
    let sent_at = Instant::now();
    line.client.write_all(head).await.unwrap();
    let mut sent = 0;
    while line.client.write_all(&[b'x'; 1_000]).await.is_ok() {
        sent += 1_000;
    }
    assert_took(sent_at, 0..1, "a busy client");
    assert!((100_000..400_000).contains(&sent), "{sent} bytes were discarded");
}

//! Graceful shutdown: no new connections, requests in flight finish, the drain timeout limits the
//! wait.

use std::time::Duration;

use futures_util::future::join_all;
use http::Request;
use palisade_middleware::{client, respond::Protocol, retry::MethodContracts, server::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::body::Body;
use tower::{ServiceExt, layer::util::Identity};

use crate::{
    fixture::{Server, TEST_TIMEOUT},
    frames::{ACK, END_STREAM, GOAWAY, HEADERS, SETTINGS, preface, request, until},
};

const HELD: &[u8] = b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n";

async fn open_with(server: &Server, sent: &[u8]) -> TcpStream {
    let mut stream = server.connect().await;
    stream.write_all(sent).await.unwrap();
    stream
}

/// Opens connections without a (further) request, in different protocol states.
async fn silent_connections(server: &Server) -> Vec<TcpStream> {
    let idle = open_with(server, b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    idle.readable().await.unwrap();
    vec![
        idle,
        open_with(server, b"").await,
        open_with(server, b"PRI * HTTP/2.0\r\n").await,
        open_with(server, b"GET / HTTP/1.1\r\nhos").await,
        open_with(server, &preface(&[])).await,
    ]
}

/// Shuts the server down and waits until connections are refused.
async fn stop(server: &Server) {
    server.shutdown.cancel();
    let refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, refused).await.expect("the listener is closed");
}

#[tokio::test]
async fn drain_finishes_requests_and_closes_idle() {
    let server = Server::start(Protocol::Http, Config { drain_timeout_ms: 60_000, ..Config::default() });
    let mut http1 = open_with(&server, HELD).await;
    let mut http2 = open_with(&server, &[preface(&[]), request(1, END_STREAM, "GET", "/held")].concat()).await;
    let silent = silent_connections(&server).await;
    server.app.held(2).await;
    stop(&server).await;
    for mut stream in silent {
        // Reads an earlier response, if any, and the end.
        let end = timeout(TEST_TIMEOUT, stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "a silent connection is still open");
    }
    timeout(TEST_TIMEOUT, until(&mut http2, |frame| frame.kind == GOAWAY)).await.unwrap().unwrap();
    assert!(!server.serving.is_finished(), "requests are in flight");
    server.app.release.add_permits(2);
    let mut answer = String::new();
    timeout(TEST_TIMEOUT, http1.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_eq!(timeout(TEST_TIMEOUT, until(&mut http2, |frame| frame.kind == HEADERS)).await.unwrap().unwrap().status(), 200);
    assert!(timeout(TEST_TIMEOUT, until(&mut http2, |_| false)).await.unwrap().is_none());
    timeout(TEST_TIMEOUT, server.serving).await.expect("the server stops long before the drain timeout").unwrap();
}

/// Waits until the server has read the preface.
async fn settings_acknowledged(stream: &mut TcpStream) {
    let mut head = [0; 9];
    while head[3..5] != [SETTINGS, ACK] {
        stream.read_exact(&mut head).await.unwrap();
        let [l1, l2, l3, ..] = head;
        stream.read_exact(&mut vec![0; u32::from_be_bytes([0, l1, l2, l3]) as usize]).await.unwrap();
    }
}

/// A client whose first request crosses the shutdown must learn that it was not handled.
#[tokio::test]
async fn drain_sends_goaway_before_the_first_request() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let server = Server::start(protocol, Config { drain_timeout_ms: 60_000, ..Config::default() });
        let mut connected = open_with(&server, &preface(&[])).await;
        timeout(TEST_TIMEOUT, settings_acknowledged(&mut connected)).await.unwrap();
        server.shutdown.cancel();
        timeout(TEST_TIMEOUT, until(&mut connected, |frame| frame.kind == GOAWAY)).await.unwrap().expect("a GOAWAY before the end");
        timeout(TEST_TIMEOUT, server.serving).await.expect("the server does not wait for the client").unwrap();
    }
}

#[tokio::test]
async fn drain_timeout_closes_open_connections() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let server = Server::start(protocol, Config { drain_timeout_ms: 300, ..Config::default() });
        // One client never acknowledges the GOAWAY, the other has a request that never ends.
        let (verb, done, held) = match protocol {
            Protocol::Http => ("GET", "/", "/held"),
            Protocol::Grpc => ("POST", "/test.Test/Call", "/test.Test/Held"),
        };
        let mut unresponsive = open_with(&server, &[preface(&[]), request(1, END_STREAM, verb, done)].concat()).await;
        timeout(TEST_TIMEOUT, until(&mut unresponsive, |frame| frame.kind == HEADERS)).await.unwrap().unwrap();
        let mut busy = open_with(&server, &[preface(&[]), request(1, END_STREAM, verb, held)].concat()).await;
        server.app.held(1).await;
        let stopped_at = Instant::now();
        stop(&server).await;
        timeout(TEST_TIMEOUT, server.serving).await.expect("the server stops at the drain timeout").unwrap();
        assert!(stopped_at.elapsed() >= Duration::from_millis(300), "{:?}", stopped_at.elapsed());
        for stream in [&mut unresponsive, &mut busy] {
            assert!(timeout(TEST_TIMEOUT, stream.read_to_end(&mut Vec::new())).await.is_ok(), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn max_connection_age_loses_no_call() {
    let config = Config { first_request_timeout_ms: 400, max_connection_age_ms: 1, ..Config::default() };
    let server = Server::start(Protocol::Grpc, config);
    let url = format!("http://{}", server.address);
    // A request that the draining connection cannot take was never sent: it is retried
    // transparently, even if it is not idempotent.
    let client = client::connect("test", &client::Config::at(url.clone()), MethodContracts::default(), Identity::new()).unwrap();
    let caller = || async {
        while server.app.callers.lock().len() < 4 {
            let call = Request::post(format!("{url}/test.Test/Call")).header("content-type", "application/grpc");
            let answer = client.clone().oneshot(call.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.headers()["grpc-status"], "0", "call lost: {answer:?}");
        }
    };
    // More calls than the retry budget: transparent retries do not use it.
    timeout(2 * TEST_TIMEOUT, join_all((0..16).map(|_| caller()))).await.expect("connections are replaced in time");
}

//! Stopping: no new connection, the old requests answered, nobody waited for longer than the drain time.

use std::time::Duration;

use futures_util::future::join_all;
use http::Request;
use palisade_middleware::{client, respond::Protocol, retry::IdempotentMethods, server::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::body::Body;
use tower::{ServiceExt, layer::util::Identity};

use crate::{
    app::{TEST_TIMEOUT, Server},
    frames::{END_STREAM, GOAWAY, HEADERS, preface, request, until},
};

const HELD: &[u8] = b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n";

async fn open_with(server: &Server, sent: &[u8]) -> TcpStream {
    let mut stream = server.connect().await;
    stream.write_all(sent).await.unwrap();
    stream
}

/// Connections that bring no request, or no further one, each in its own way.
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

/// Stops the server and returns when nobody can connect any more.
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
async fn requests_in_flight_are_answered_and_the_silent_are_not_waited_for() {
    let server = Server::start(Protocol::Http, Config { drain_timeout_ms: 60_000, ..Config::default() });
    let mut http1 = open_with(&server, HELD).await;
    let mut http2 = open_with(&server, &[preface(&[]), request(1, END_STREAM, "GET", "/held")].concat()).await;
    let silent = silent_connections(&server).await;
    server.app.held(2).await;
    stop(&server).await;
    for mut stream in silent {
        // Whatever was answered before, and the end.
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
    timeout(TEST_TIMEOUT, server.serving).await.expect("it stops long before the drain time is over").unwrap();
}

#[tokio::test]
async fn what_is_still_open_when_the_drain_time_is_over_is_cut() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let server = Server::start(protocol, Config { drain_timeout_ms: 300, ..Config::default() });
        // One is asked to go and never says that it has heard; the other has a request that never ends.
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
        timeout(TEST_TIMEOUT, server.serving).await.expect("nobody is waited for longer").unwrap();
        assert!(stopped_at.elapsed() >= Duration::from_millis(300), "{:?}", stopped_at.elapsed());
        for stream in [&mut unresponsive, &mut busy] {
            assert!(timeout(TEST_TIMEOUT, stream.read_to_end(&mut Vec::new())).await.is_ok(), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_new_connection_every_so_often_costs_no_call() {
    let config = Config { first_request_timeout_ms: 400, max_connection_age_ms: 1, ..Config::default() };
    let server = Server::start(Protocol::Grpc, config);
    let url = format!("http://{}", server.address);
    // What the old connection can no longer take was not sent: the client may send it again, whatever it does.
    let client = client::connect("test", &client::Config::at(url.clone()), IdempotentMethods::default(), Identity::new()).unwrap();
    let caller = || async {
        while server.app.callers.lock().len() < 4 {
            let call = Request::post(format!("{url}/test.Test/Call")).header("content-type", "application/grpc");
            let answer = client.clone().oneshot(call.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.headers()["grpc-status"], "0", "a call is lost: {answer:?}");
        }
    };
    // More than may retry at once: what was never sent is no retry.
    timeout(2 * TEST_TIMEOUT, join_all((0..16).map(|_| caller()))).await.expect("connections come and go");
}

//! Fault injection: an injected abort over real sockets sends no part of a response, and breaks
//! only the affected request.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, routing::get};
use http::{Request, StatusCode};
use palisade_middleware::{
    auth::Verifier,
    clock::SystemClock,
    fault_injection::{self, Faults, Kind, Rule},
    method_table::{Access, Method, MethodTable},
    respond::Protocol,
    server::{self, accept},
    task,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

static ROUTES: [Method; 2] = [Method::http("GET", "/well", Access::Public), Method::http("GET", "/broken", Access::Public)];

/// Full server stack with two routes; every request to one of them is aborted.
fn server() -> (SocketAddr, Faults) {
    let methods = Arc::new(MethodTable::new(&[&ROUTES]).unwrap());
    let config = server::Config { fault_injection: fault_injection::Config { enabled: true }, ..server::Config::default() };
    let faults = Faults::new(&config.fault_injection, Protocol::Http, &methods);
    faults.replace(vec![Rule { name: "broken".to_owned(), method: "GET /broken".to_owned(), rate: 1.0, kind: Kind::Abort }]).unwrap();
    let router = Router::new().route("/well", get(|| async { "well" })).route("/broken", get(|| async { "never seen" }));
    let verifier = Arc::new(Verifier::new(Vec::new(), Arc::new(SystemClock)).unwrap());
    let stack = server::stack(Protocol::Http, router, methods, verifier, faults.clone(), &config);
    let listener = accept::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    drop(task::spawn(async move { accept::serve(listener, Protocol::Http, stack, &config, CancellationToken::new()).await }));
    (address, faults)
}

/// Returns the bytes of one HTTP/1.1 connection until the server closes it.
async fn read(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    // A close and a reset both end the connection.
    let _ = stream.read_to_end(&mut received).await;
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn abort_closes_http1_connection_without_response() {
    let (address, faults) = server();
    assert_eq!(read(address, "GET /broken HTTP/1.1\r\nhost: a\r\n\r\n").await, "");
    let response = read(address, "GET /well HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("well"), "{response}");
    // The response to the previous request on the same connection arrives completely.
    let response = read(address, "GET /well HTTP/1.1\r\nhost: a\r\n\r\nGET /broken HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(response.ends_with("well"), "{response}");
    let response = read(address, "HEAD /broken HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 500 "), "{response}");

    faults.replace(Vec::new()).unwrap();
    let response = read(address, "GET /broken HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(response.ends_with("never seen"), "{response}");
}

#[tokio::test]
async fn abort_resets_only_the_http2_stream() {
    let (address, _) = server();
    let (client, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    drop(task::spawn(async move { drop(connection.await) }));
    let mut client = client.ready().await.unwrap();
    let mut send = |path: &str| {
        let request = Request::get(format!("http://a{path}")).body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let (before, broken, after) = (send("/well"), send("/broken"), send("/well"));
    let error = broken.await.expect_err("the stream is reset before its headers");
    assert!(error.is_reset() && error.is_remote(), "{error:?}");
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    for response in [before, after] {
        let mut answer = response.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "well");
    }
}

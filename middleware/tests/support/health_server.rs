//! Scripted `grpc.health.v1` servers on loopback ports, and a call through the generated client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use palisade_middleware::{client::Client, task};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

/// The called method.
pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Headers of each received request.
pub(crate) type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// Starts a server that gives the same response to every call.
pub(crate) async fn server<F>(answer: impl Fn() -> F + Clone + Send + Sync + 'static) -> (SocketAddr, Seen)
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, serve(listener, answer))
}

/// Serves on a given listener.
pub(crate) fn serve<F>(listener: TcpListener, answer: impl Fn() -> F + Clone + Send + Sync + 'static) -> Seen
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let seen = Seen::default();
    let log = seen.clone();
    let handler = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        log.lock().push(request.headers().clone());
        answer().await
    });
    task::spawn(Server::builder().add_routes(Routes::from(handler)).serve_with_incoming(TcpIncoming::from(listener)));
    seen
}

/// Returns a port without a listener.
pub(crate) fn dead_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Below the ephemeral ports, which connections of other tests use. Starts elsewhere in each
    // process.
    let first = std::process::id().wrapping_mul(37);
    let mut ports = std::iter::repeat_with(|| 20_000 + first.wrapping_add(NEXT.fetch_add(97, Relaxed)) % 12_000);
    let address = |port| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
    ports.by_ref().take(100).map(address).find(|address| std::net::TcpListener::bind(address).is_ok()).unwrap()
}

/// Responds with the message `status = SERVING` and success trailers.
pub(crate) async fn serving() -> Response<Body> {
    let message = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]));
    let trailers = Frame::trailers(Status::ok("").into_http::<()>().headers().clone());
    grpc(Body::new(StreamBody::new(futures_util::stream::iter([message, trailers].map(Ok::<_, Status>)))))
}

/// Responds with headers, then hangs.
pub(crate) async fn hanging() -> Response<Body> {
    grpc(Body::new(StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Status>>())))
}

/// Responds with a trailers-only error.
pub(crate) async fn unavailable() -> Response<Body> {
    Status::unavailable("not now").into_http()
}

fn grpc(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

/// Calls `Check` once.
pub(crate) async fn check(client: &Client) -> Result<HealthCheckResponse, Status> {
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(client.clone()).check(request).await.map(tonic::Response::into_inner)
}

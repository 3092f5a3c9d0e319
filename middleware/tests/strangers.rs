//! Layers around services and clients that know nothing of this project: no declared contracts, a
//! tonic `Channel`, an axum `Router`.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "support/health_server.rs"]
mod health_server;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use futures_util::poll;
use health_server::{CHECK, check, dead_port, hanging, server, serving, unavailable};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use palisade_middleware::{
    circuit_breaker::{self, CircuitBreakerLayer, State},
    client::{self, Client, Config},
    deadline::{AttemptTimeoutLayer, DeadlineLayer, RejectExpiredLayer},
    method_table::MethodTable,
    metrics::{Boundary, MetricsLayer},
    rate_limit::{self, AddressConfig, AddressLimitLayer, RateLimitLayer},
    request_context::RequestContextLayer,
    respond::{Protocol, RespondLayer},
    retry::{self, MethodContracts},
    task,
    trace::ServerTraceLayer,
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    body::Body,
    client::Grpc,
    service::Routes,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient},
};
use tonic_prost::ProstCodec;
use tower::{ServiceBuilder, ServiceExt, layer::util::Identity};

const ATTEMPT: Duration = Duration::from_millis(100);
/// Longer than an attempt and a call may take.
const LONG: Duration = Duration::from_millis(400);

/// A target without declared contracts, whose breaker counts everything.
fn connect(address: SocketAddr) -> Client {
    let config = Config {
        attempt_timeout_ms: 100,
        call_timeout_ms: 150,
        retry: retry::Config { enabled: false, ..retry::Config::default() },
        circuit_breaker: circuit_breaker::Config { min_calls: 1, ..circuit_breaker::Config::default() },
        ..Config::at(format!("http://{address}"))
    };
    client::connect("stranger", &config, MethodContracts::default(), Identity::new()).unwrap()
}

#[tokio::test]
async fn undeclared_server_stream_outlives_the_attempt_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, service) = tonic_health::server::health_reporter();
    task::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
    let client = connect(address);
    let mut stream = HealthClient::new(client.clone()).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().status, 1);
    assert!(timeout(LONG, stream.message()).await.is_err(), "the quiet stream was ended");
    reporter.set_service_status("", ServingStatus::NotServing).await;
    assert_eq!(stream.message().await.unwrap().unwrap().status, 2);
    drop(stream);
    assert_eq!((client.breaker().state(), client.breaker().counts().failed), (State::Closed, 0));
}

#[tokio::test]
async fn undeclared_stream_is_a_successful_probe() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, service) = tonic_health::server::health_reporter();
    task::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
    let client = connect(address);
    client.breaker().open_for(Duration::ZERO);
    let mut streams = Vec::new();
    while client.breaker().state() != State::Closed {
        streams.push(HealthClient::new(client.clone()).watch(HealthCheckRequest::default()).await.unwrap());
    }
}

/// Starts a client stream with one message; returns its sender and the call.
fn upload(client: Client) -> (mpsc::Sender<HealthCheckRequest>, impl Future<Output = Result<HealthCheckResponse, Status>>) {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(HealthCheckRequest::default()).unwrap();
    let call = async move {
        let mut grpc = Grpc::new(client);
        grpc.ready().await.unwrap();
        let path = "/stranger.Files/Upload".parse().unwrap();
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        grpc.client_streaming(tonic::Request::new(ReceiverStream::new(receiver)), path, codec).await.map(tonic::Response::into_inner)
    };
    (sender, call)
}

/// Answer of a server, as a future.
type Answer = std::pin::Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Serves a method that reads the whole request before it answers.
async fn reading_server(answer: fn() -> Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Router::new().fallback(async move |request: axum::extract::Request| {
        drop(request.into_body().collect().await);
        answer().await
    });
    task::spawn(Server::builder().add_routes(Routes::from(handler)).serve_with_incoming(TcpIncoming::from(listener)));
    address
}

#[tokio::test]
async fn undeclared_client_stream_outlives_the_attempt_timeout() {
    let client = connect(reading_server(|| Box::pin(serving())).await);
    let (sender, call) = upload(client.clone());
    let mut call = Box::pin(call);
    assert!(timeout(LONG, &mut call).await.is_err(), "the upload was ended");
    sender.send(HealthCheckRequest::default()).await.unwrap();
    drop(sender);
    assert_eq!(call.await.unwrap().status, 1);
    assert_eq!((client.breaker().state(), client.breaker().counts().failed), (State::Closed, 0));
}

#[tokio::test]
async fn hang_after_a_client_stream_is_a_failure() {
    let client = connect(reading_server(|| Box::pin(std::future::pending())).await);
    let (sender, call) = upload(client.clone());
    let mut call = Box::pin(call);
    assert!(poll!(&mut call).is_pending());
    drop(sender);
    assert_eq!(call.await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(client.breaker().counts().failed + u32::from(client.breaker().state() == State::Open), 1);
}

#[tokio::test]
async fn declared_unary_call_is_limited_to_its_last_byte() {
    let (address, _) = server(hanging).await;
    let config = Config { attempt_timeout_ms: 100, ..Config::at(format!("http://{address}")) };
    let client = client::connect("health", &config, MethodContracts::unary([CHECK]), Identity::new()).unwrap();
    assert_eq!(check(&client).await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn transport_errors_of_a_foreign_channel_count() {
    let channel = Endpoint::from_shared(format!("http://{}", dead_port())).unwrap().connect_lazy();
    let config = Config { retry: retry::Config { enabled: false, ..retry::Config::default() }, ..Config::at("http://stranger.example:1") };
    let client = client::stack("stranger", &config, MethodContracts::default(), Identity::new(), channel).unwrap();
    for _ in 0..60 {
        assert_eq!(check(&client).await.unwrap_err().code(), Code::Unavailable);
    }
    assert_ne!(client.breaker().state(), State::Closed);
}

#[tokio::test]
async fn single_layers_take_a_tonic_channel() {
    let (address, _) = server(unavailable).await;
    let channel: Channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let breaker = CircuitBreakerLayer::new("stranger", &circuit_breaker::Config::default());
    let service = ServiceBuilder::new()
        .layer(breaker.clone())
        .layer(AttemptTimeoutLayer::new("stranger", ATTEMPT * 100))
        .service(client::foreign(channel));
    let request = http::Request::post(format!("http://{address}{CHECK}")).header("content-type", "application/grpc");
    let response = service.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    response.into_body().collect().await.map_err(|error| error.to_string()).unwrap();
    assert_eq!(breaker.handle().counts().failed, 1);
}

#[tokio::test]
async fn layers_wrap_an_axum_router() {
    let layers = ServiceBuilder::new()
        .layer(RequestContextLayer(Arc::new(MethodTable::new(&[]).unwrap())))
        .layer(ServerTraceLayer::new(Protocol::Http))
        .layer(MetricsLayer::new(Boundary::HttpServer))
        .layer(RespondLayer(Protocol::Http))
        .layer(DeadlineLayer::new(Protocol::Http, LONG * 100, LONG * 100))
        .layer(RateLimitLayer::new(Protocol::Http, &rate_limit::Config::default()))
        .layer(RejectExpiredLayer);
    let router: Router = Router::new().route("/own", get(async || (StatusCode::CONFLICT, "the handler's own"))).layer(layers);
    let request = http::Request::get("/own").body(axum::body::Body::empty()).unwrap();
    let answer = router.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "the handler's own");
}

#[tokio::test]
async fn address_limit_works_under_axum_serve() {
    let config = AddressConfig { per_second: 1, burst: 1, ..AddressConfig::default() };
    let layers = ServiceBuilder::new().layer(RespondLayer(Protocol::Http)).layer(AddressLimitLayer::new(&config));
    let router: Router = Router::new().route("/", get(async || ())).layer(layers);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    task::spawn(async move { axum::serve(listener, service).await });
    let from = async |local: [u8; 4]| {
        let client = reqwest::Client::builder().local_address(std::net::IpAddr::from(local)).build().unwrap();
        client.get(&url).send().await.unwrap().status()
    };
    assert_eq!(from([127, 0, 0, 1]).await, StatusCode::OK);
    assert_eq!(from([127, 0, 0, 1]).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(from([127, 0, 0, 2]).await, StatusCode::OK, "another address has a bucket of its own");
}

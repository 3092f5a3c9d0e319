//! Three hops (user → A → B → C), each with the server and client stack: cost of a failing leaf,
//! deadline propagation, cancellation propagation.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "support/refusals.rs"]
mod refusals;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderMap;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use palisade_middleware::{
    auth::Verifier,
    circuit_breaker::{self, Counts, State},
    client::{self, Client},
    clock::SystemClock,
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    rejection::{Rejection, Retry, reasons},
    respond::Protocol,
    retry,
    server::{self, accept},
    task,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, service::Routes, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::layer::util::Identity;

use self::refusals::{advice, reason};

const CHECK: &str = "/grpc.health.v1.Health/Check";

static METHODS: [Method; 1] = [Method::grpc(CHECK, Access::Public)];

/// Headers of the requests that reached a handler.
type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// Converts an upstream error to the service's own error.
type Translate = fn(&Status) -> Status;

/// Behavior of a handler.
enum Behavior {
    /// Calls the next service.
    Call(HealthClient<Client>, Translate),
    /// Responds immediately.
    Respond(fn() -> Result<(), Rejection>),
    /// Hangs on the first call, signals its cancellation, and responds to all other calls.
    HangOnce(Mutex<Option<oneshot::Sender<()>>>),
}

struct Handler {
    seen: Seen,
    behavior: Behavior,
}

#[tonic::async_trait]
impl Health for Handler {
    type WatchStream = futures_util::stream::Pending<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.seen.lock().push(request.metadata().as_ref().clone());
        match &self.behavior {
            Behavior::Call(next, translate) => {
                next.clone().check(request.into_inner()).await.map_err(|status| translate(&status))?;
            }
            Behavior::Respond(answer) => answer()?,
            Behavior::HangOnce(cancelled) => {
                let cancelled = cancelled.lock().take();
                if let Some(_signal_on_drop) = cancelled {
                    std::future::pending::<()>().await;
                }
            }
        }
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Serves a handler behind the server stack, with one request in flight at most.
fn serve(behavior: Behavior) -> (SocketAddr, Seen) {
    let listener = accept::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let config = server::Config { max_in_flight: 1, ..server::Config::default() };
    let handler = Routes::new(HealthServer::new(Handler { seen: seen.clone(), behavior })).prepare().into_axum_router();
    let table = Arc::new(MethodTable::new(&[&METHODS]).unwrap());
    let stack = server::stack(
        Protocol::Grpc,
        handler,
        table,
        Arc::new(Verifier::new(vec![], Arc::new(SystemClock)).unwrap()),
        Faults::disabled(),
        &config,
    );
    drop(task::spawn(async move { accept::serve(listener, Protocol::Grpc, stack, &config, CancellationToken::new()).await }));
    (address, seen)
}

/// Client with one call in flight at most, and a breaker that opens at the fifth failure.
fn connect(target: &'static str, address: SocketAddr) -> Client {
    let breaker = circuit_breaker::Config { min_calls: 5, ..circuit_breaker::Config::default() };
    let config = client::Config { max_in_flight: 1, circuit_breaker: breaker, ..client::Config::at(format!("http://{address}")) };
    client::connect(target, &config, [CHECK].into_iter().collect(), Identity::new()).unwrap()
}

fn user_client(address: SocketAddr) -> HealthClient<Channel> {
    HealthClient::new(Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy())
}

struct Chain {
    user: HealthClient<Channel>,
    /// Client of A for B.
    to_b: Client,
    /// Client of B for C.
    to_c: Client,
    seen_by_a: Seen,
    seen_by_b: Seen,
}

impl Chain {
    /// Starts A and B in front of the C at `leaf`.
    fn in_front_of(leaf: SocketAddr, translate: Translate) -> Self {
        let to_c = connect("c", leaf);
        let (b, seen_by_b) = serve(Behavior::Call(HealthClient::new(to_c.clone()), translate));
        let to_b = connect("b", b);
        let (a, seen_by_a) = serve(Behavior::Call(HealthClient::new(to_b.clone()), translate));
        Self { user: user_client(a), to_b, to_c, seen_by_a, seen_by_b }
    }

    async fn call(&self, timeout: Option<Duration>) -> Result<(), Status> {
        let mut request = Request::new(HealthCheckRequest::default());
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        self.user.clone().check(request).await.map(drop)
    }
}

/// Passes the error through, like `?` in a handler.
fn pass_through(status: &Status) -> Status {
    status.clone()
}

/// Replaces the error but keeps its retry pushback, as a careful handler does.
fn replace_error(status: &Status) -> Status {
    let rejection = Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "leaf service is unavailable");
    rejection.with_retry(retry::pushback(status.metadata().as_ref())).into()
}

fn overloaded() -> Result<(), Rejection> {
    Err(Rejection::new(&reasons::OVERLOADED, "no room"))
}

fn previous_attempts(seen: &Seen) -> Vec<Option<String>> {
    let text = |headers: &HeaderMap| Some(headers.get("grpc-previous-rpc-attempts")?.to_str().unwrap().to_owned());
    seen.lock().iter().map(text).collect()
}

#[tokio::test]
async fn failing_leaf_gets_three_attempts_at_any_depth() {
    for (translate, expected) in [(pass_through as Translate, "OVERLOADED"), (replace_error, "UPSTREAM_UNAVAILABLE")] {
        let (leaf, seen_by_c) = serve(Behavior::Respond(overloaded));
        let chain = Chain::in_front_of(leaf, translate);
        let refusal = chain.call(None).await.unwrap_err();
        assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::Unavailable, expected));
        assert_eq!(advice(&refusal), Retry::Never);
        assert_eq!(previous_attempts(&seen_by_c), [None, Some("1".to_owned()), Some("2".to_owned())]);
        assert_eq!((chain.seen_by_a.lock().len(), chain.seen_by_b.lock().len()), (1, 1));
        assert_eq!(chain.to_c.breaker().counts().failed, 0, "load shedding is no failure");
        assert_eq!(chain.to_b.breaker().counts(), Counts::default(), "the failure is not attributed to B");
    }
}

#[tokio::test]
async fn dead_leaf_opens_only_the_adjacent_breaker() {
    for translate in [pass_through as Translate, replace_error] {
        let dead_port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let chain = Chain::in_front_of(dead_port, translate);
        let refusal = chain.call(None).await.unwrap_err();
        assert_eq!(
            (refusal.code(), reason(&refusal).as_str(), advice(&refusal)),
            (Code::Unavailable, "UPSTREAM_UNAVAILABLE", Retry::Never)
        );
        assert_eq!(chain.to_c.breaker().counts().failed, 4, "three attempts and one transparent retry");
        assert_eq!(chain.seen_by_b.lock().len(), 1);

        assert!(chain.call(None).await.is_err());
        assert_eq!((chain.to_c.breaker().state(), chain.to_b.breaker().state()), (State::Open, State::Closed));
        assert_eq!(chain.to_b.breaker().counts(), Counts::default());

        // From here B rejects without a call to C. The `Retry-After` exceeds the user's deadline.
        let refusal = chain.call(Some(Duration::from_millis(500))).await.unwrap_err();
        assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::Unavailable, "UPSTREAM_UNAVAILABLE"));
        assert!(matches!(advice(&refusal), Retry::After(wait) if wait > Duration::from_millis(500)), "{refusal:?}");
        assert_eq!(chain.seen_by_b.lock().len(), 3);
        assert_eq!(chain.to_b.breaker().counts(), Counts::default());
    }
}

#[tokio::test]
async fn client_retries_are_not_retried_again() {
    let (leaf, seen) = serve(Behavior::Respond(overloaded));
    let (a, _) = serve(Behavior::Call(HealthClient::new(connect("c", leaf)), pass_through));
    let mut request = Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("grpc-previous-rpc-attempts", "1".parse().unwrap());
    let refusal = user_client(a).check(request).await.unwrap_err();
    assert_eq!((refusal.code(), advice(&refusal)), (Code::Unavailable, Retry::Unspecified));
    assert_eq!(seen.lock().len(), 1);
}

/// Returns the `grpc-timeout` of the first request.
fn timeout(seen: &Seen) -> Duration {
    let text = seen.lock()[0]["grpc-timeout"].to_str().unwrap().to_owned();
    let (number, unit) = text.split_at(text.len() - 1);
    let number = number.parse().unwrap();
    match unit {
        "n" => Duration::from_nanos(number),
        "u" => Duration::from_micros(number),
        "m" => Duration::from_millis(number),
        _ => panic!("longer than the user's deadline: {text}"),
    }
}

#[tokio::test]
async fn deadline_shrinks_at_each_hop() {
    let (leaf, seen_by_c) = serve(Behavior::Respond(|| Ok(())));
    let chain = Chain::in_front_of(leaf, pass_through);
    let deadline = Duration::from_millis(300);
    chain.call(Some(deadline)).await.unwrap();
    let [a, b, c] = [&chain.seen_by_a, &chain.seen_by_b, &seen_by_c].map(timeout);
    assert_eq!(a, deadline);
    // Each hop subtracts a safety margin of 2 % and the elapsed time.
    assert!(b <= a * 98 / 100, "{a:?} {b:?}");
    assert!(c <= b * 98 / 100, "{b:?} {c:?}");
    assert!(c > Duration::ZERO);
}

/// Sums the series with this name and label text.
fn metric_sum(metrics: &PrometheusHandle, name: &str, label: &str) -> f64 {
    palisade_middleware::metrics::collect();
    let text = metrics.render();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn cancellation_frees_permits_of_every_hop() {
    // The test runs on one thread, so that the local recorder sees everything.
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _local = metrics::set_default_local_recorder(&recorder);
    let (on_cancel, cancelled) = oneshot::channel();
    let (leaf, seen_by_c) = serve(Behavior::HangOnce(Mutex::new(Some(on_cancel))));
    let chain = Arc::new(Chain::in_front_of(leaf, pass_through));
    let call = task::spawn({
        let chain = chain.clone();
        async move { chain.call(None).await }
    });
    while seen_by_c.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(metric_sum(&metrics, "palisade_rpc_server_active_calls", "").to_bits(), 3_f64.to_bits());

    call.abort();
    assert!(cancelled.await.is_err(), "the leaf handler is dropped");
    let cancelled_count = |name| metric_sum(&metrics, name, "\"CANCELLED\"");
    for (count, expected) in [
        (cancelled_count("rpc_server_call_duration_count"), 3.0),
        (cancelled_count("rpc_client_call_duration_count"), 2.0),
        (cancelled_count("grpc_client_attempt_duration_count"), 2.0),
        (metric_sum(&metrics, "palisade_breaker_calls", "\"cancelled\""), 2.0),
        (metric_sum(&metrics, "palisade_rpc_server_active_calls", ""), 0.0),
        (metric_sum(&metrics, "palisade_concurrency_in_use", ""), 0.0),
    ] {
        assert!((count - expected).abs() < f64::EPSILON, "{count} is not {expected} in\n{}", metrics.render());
    }
    // All permits are released: each hop has room for one request.
    chain.call(None).await.unwrap();
    assert_eq!(seen_by_c.lock().len(), 2);
}

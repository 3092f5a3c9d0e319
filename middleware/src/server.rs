//! Server stack: the ordered list of layers of every service. A request passes downwards through
//! [`stack`], its response upwards; a rejection is answered from where it occurs.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use palisade_auth::{AuthenticateLayer, AuthorizeLayer, ServiceCallers, Verifier};
use palisade_resilience::{
    adaptive_limit::AdaptiveLimitLayer,
    catch_panic::CatchPanicLayer,
    concurrency_limit::{ConcurrencyLimitLayer, RequestLimit, StreamLimit},
    deadline::{DeadlineLayer, RejectExpiredLayer},
    fault_injection::{FaultLayer, Faults},
    method_table::MethodTable,
    metrics::{Boundary, MetricsLayer},
    prefetched_body::PrefetchedBody,
    rate_limit::{AddressLimitLayer, RateLimitLayer},
    refusal_pause::RefusalPauseLayer,
    request_body::RequestBodyLayer,
    request_context::{CurrentContextLayer, RequestContextLayer},
    respond::{Protocol, RespondLayer},
    scheme::Scheme,
    setting::Invalid,
    streams::StreamsLayer,
    trace::ServerTraceLayer,
};
use palisade_runtime::process::Process;
use palisade_transport::{server::http_guard::HttpGuardLayer, tls::PeerIdentityLayer};
use tower::{BoxError, Service, ServiceBuilder, util::MapFutureLayer};

pub use palisade_runtime::grpc;
pub use palisade_transport::server::*;

/// Serves `router` behind the server stack until shutdown, and prints its address to standard
/// output.
pub fn serve(
    process: &Process,
    (name, protocol): (&str, Protocol),
    address: SocketAddr,
    router: Router,
    methods: Arc<MethodTable>,
    verifier: Arc<Verifier>,
    (config, faults): (&Config, Faults),
) -> Result<SocketAddr, Invalid> {
    process.serve((name, protocol), address, stack(protocol, router, methods, verifier, faults, config), config)
}

/// Wraps `handler`, usually a router, in all layers. `faults` are built from
/// `config.fault_injection` and shared with the admin port.
pub fn stack<S, B, R>(
    protocol: Protocol,
    handler: S,
    methods: Arc<MethodTable>,
    verifier: Arc<Verifier>,
    faults: Faults,
    config: &Config,
) -> impl Service<
    Request<B>,
    Response = Response<impl http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (boundary, address_limit) = match protocol {
        Protocol::Http => (Boundary::HttpServer, AddressLimitLayer::new(&config.address_limit)),
        Protocol::Grpc => (Boundary::GrpcServer, AddressLimitLayer::public_only(&config.address_limit)),
    };
    let adaptive_limit = AdaptiveLimitLayer::new(protocol, &config.adaptive_limit);
    let metrics = MetricsLayer::new(boundary).with_preregistered_series(&methods, Scheme::of_port(config.tls.is_on()));
    // Validated with the configuration.
    let proxies = config.address_limit.proxies().unwrap_or_default();
    let callers = Arc::new(ServiceCallers(verifier.clone()));
    ServiceBuilder::new()
        .map_request(|request: Request<B>| request.map(Body::new))
        // Cheap, never rejects, provides the request context to all layers below.
        .layer(RequestContextLayer(methods))
        // Span around everything that can log.
        .layer(ServerTraceLayer::new(protocol).with_trusted_proxies(proxies).with_internal_callers(callers))
        // Must see rejections and timeouts, and records cancellations from `Drop`.
        .layer(metrics)
        // Layers below fail with a typed `Rejection`; above there are only responses.
        .layer(RespondLayer(protocol))
        // Answers a connection that ignores `Retry-After` late. Outside everything that holds a
        // permit or a timer.
        .layer(RefusalPauseLayer::new(protocol))
        // Rejects ambiguous HTTP requests before another layer interprets them.
        .layer(HttpGuardLayer(protocol))
        // Address of the client, and its rate limit (HTTP; health and documents on every port).
        // Before everything that costs or waits.
        .layer(address_limit)
        // Outside every queue: a timer inside would not count the wait.
        .layer(DeadlineLayer::new(
            protocol,
            Duration::from_millis(config.default_deadline_ms),
            Duration::from_millis(config.max_deadline_ms),
        ))
        // Load shedding before any cryptography, by the state of the adaptive limit below.
        .layer(adaptive_limit.early_rejection())
        // Caller identity from the bearer token.
        .layer(AuthenticateLayer(verifier))
        // mTLS: the client certificate must belong to the authenticated caller.
        .layer(PeerIdentityLayer)
        // Method table, default deny.
        .layer(AuthorizeLayer(protocol))
        // One allocation in the middle: the type of the whole future would exceed the recursion
        // limit of optimized builds.
        .layer(MapFutureLayer::new(boxed))
        // Needs the caller. Before the shared queue, which one greedy caller could fill.
        .layer(RateLimitLayer::new(protocol, &config.rate_limit))
        // Stream limits: need the caller.
        .layer(ConcurrencyLimitLayer(StreamLimit::new(protocol, config.max_streams, config.max_streams_per_caller)))
        // Maximum age of streams; outside the layers whose responses it may end.
        .layer(StreamsLayer::new(protocol, Duration::from_millis(config.max_stream_age_ms)))
        // Receives the request. Outside the permits below: they cover our work, never the peer's
        // pace. Inside all that rejects a request by its head.
        .layer(RequestBodyLayer::new(config.max_body_bytes, Duration::from_millis(config.body_read_timeout_ms), config.max_in_flight))
        // Bounds memory even without the adaptive limit.
        .layer(ConcurrencyLimitLayer(RequestLimit::new(config.max_in_flight)))
        // Next to the handler, whose latency it measures; needs the priority of the caller.
        .layer(adaptive_limit)
        // Inside metrics and permits: both see a panic as a response.
        .layer(CatchPanicLayer::new())
        // Fault injection in place of the handler: the layers above treat a fault as real.
        .layer(FaultLayer(faults))
        // Right before the handler: no work after the deadline.
        .layer(RejectExpiredLayer)
        // The handler reads all of the above from `context::current`.
        .layer(CurrentContextLayer)
        .map_request(|request: Request<PrefetchedBody<Body>>| request.map(Body::new))
        .map_response(|response: Response<R>| response.map(Body::new))
        .service(handler)
}

fn boxed<F: Future + Send + 'static>(future: F) -> Pin<Box<dyn Future<Output = F::Output> + Send>> {
    #[cfg(test)]
    tests::assert_shallow::<F>();
    Box::pin(future)
}

#[cfg(test)]
mod tests {
    use std::any::type_name;

    use http::StatusCode;
    use palisade_resilience::{
        clock::SystemClock,
        method_table::{Access, Method},
    };

    use super::*;

    /// Levels of generic types. At about twice as many, optimized builds of programs with a stack
    /// fail (E0275). A deeper half needs another box.
    const MAX_DEPTH: usize = 36;

    pub(super) fn assert_shallow<F>() {
        // Without the arrows of function pointers.
        let name = type_name::<F>().replace("->", "");
        let (mut depth, mut deepest) = (0, 0);
        for character in name.chars() {
            match character {
                '<' => depth += 1,
                '>' => depth -= 1,
                _ => {}
            }
            deepest = depth.max(deepest);
        }
        assert!(deepest <= MAX_DEPTH, "{deepest} levels: {name}");
    }

    fn assert_shallow_future<F: Future>(future: F) -> F {
        assert_shallow::<F>();
        future
    }

    #[tokio::test]
    async fn type_depth_is_far_below_the_recursion_limit() {
        static METHODS: [Method; 1] = [Method::http("GET", "/", Access::Public)];
        let router = Router::new().route("/", axum::routing::get(async || "pong"));
        let table = Arc::new(MethodTable::new(&[&METHODS]).unwrap());
        let verifier = Arc::new(Verifier::new(Vec::new(), Arc::new(SystemClock)).unwrap());
        let mut stack = stack(Protocol::Http, router, table, verifier, Faults::disabled(), &Config::default());
        let response =
            assert_shallow_future(stack.call(Request::get("/").header("host", "localhost").body(Body::empty()).unwrap())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "the handler is reached through both halves");
    }
}

//! The server stack of every hop, one visible list, and the loop that serves it.
//!
//! Outermost first; a request passes downwards, its answer upwards:
//!
//! | layer | why here |
//! |---|---|
//! | [`RequestContextLayer`] | cheap, cannot refuse, feeds all below |
//! | [`ServerTraceLayer`] | the span must be around everything that can log |
//! | [`MetricsLayer`] | must see refusals and timeouts, and record from `Drop` |
//! | [`RespondLayer`] | below it layers fail with a typed [`Rejection`](crate::rejection::Rejection); above it there are only answers |
//! | [`HttpGuardLayer`] | what two programs could read in two ways is read by nobody below |
//! | [`DeadlineLayer`] | outside every queue: waiting counts |
//! | [`LoadShedLayer`] | before crypto costs anything |
//! | [`AddressLimitLayer`] | likewise: whose token is bad has no name to count by |
//! | [`AuthenticateLayer`] | who asks |
//! | [`ActorLayer`] | whose certificate, if the port wants one: once it is known who the token says it is |
//! | [`AuthorizeLayer`] | the method table, default deny |
//! | [`RateLimitLayer`] | needs the caller, protects what is shared below |
//! | [`StreamsLayer`] | needs the caller; around all that makes the answer whose end it may bring |
//! | [`AdaptiveLimitLayer`] | needs the caller for the priority; close to the handler, whose latency it measures |
//! | [`CatchPanicLayer`] | inside metrics and permits, so that they see it |
//! | [`FaultLayer`] | faults on purpose, in the handler's place: all of the above takes them for its own |
//! | [`ScopeLayer`] | the handler finds all of the above in [`crate::context::current`] |

pub mod accept;
pub mod grpc;
mod http2;
pub mod http_guard;
mod unary_request_body;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tower::{BoxError, Service, ServiceBuilder};

use crate::{
    adaptive_limit::{self, AdaptiveLimitLayer},
    auth::{AuthenticateLayer, AuthorizeLayer, Verifier},
    catch_panic::CatchPanicLayer,
    config,
    deadline::DeadlineLayer,
    fault::{self, FaultLayer, Faults},
    load_shed::ConcurrencyLimitLayer,
    method_table::{Access, Method, MethodTable},
    metrics::{Boundary, MetricsLayer},
    rate_limit::{self, AddressLimitLayer, RateLimitLayer},
    request_context::{RequestContextLayer, CurrentContextLayer},
    respond::{Protocol, RespondLayer},
    server::http_guard::HttpGuardLayer,
    streams::StreamsLayer,
    tls::{self, PeerIdentityLayer},
    trace::ServerTraceLayer,
};

pub use http2::Http2;

/// Entries of the method table for what every gRPC port has: health and reflection.
pub static GRPC_INFRASTRUCTURE: [Method; 5] = [
    Method::grpc("/grpc.health.v1.Health/Check", Access::Public).infrastructure(),
    Method::grpc("/grpc.health.v1.Health/Watch", Access::Public).infrastructure().streaming(),
    Method::grpc("/grpc.health.v1.Health/List", Access::Public).infrastructure(),
    Method::grpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Public).infrastructure(),
    Method::grpc("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::Public).infrastructure(),
];

/// How much a server takes on, and for how long.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time for a request whose caller set no deadline, milliseconds.
    pub default_deadline_ms: u64,
    /// The longest deadline that a caller can ask for, milliseconds.
    pub max_deadline_ms: u64,
    /// Requests in flight above which new ones are refused with 503 / UNAVAILABLE, whoever asks: a bound for memory. Well above what the
    /// adaptive limit lets run and wait, which looks at who asks.
    pub max_in_flight: usize,
    /// Streams that may be open at once, of all callers; more are refused with 503 / UNAVAILABLE.
    pub max_streams: usize,
    /// Streams that one caller may have open at once; more are refused with 429 / `RESOURCE_EXHAUSTED`.
    pub max_streams_per_caller: usize,
    /// After this long, 10 % more or less, a stream comes to an end, so that its reader finds new replicas; it does so too when its
    /// connection has to go. Milliseconds.
    pub max_stream_age_ms: u64,
    /// Open connections above which new ones wait to be accepted.
    pub max_connections: usize,
    /// Open connections of one address (IPv6: of one /64 network) to an HTTP port, above which its new ones are closed at once; 0 turns
    /// the limit off. The addresses in `address_limit.trusted_proxies` have none.
    pub max_connections_per_address: usize,
    /// After this long, 10 % more or less, a connection is asked to go, so that load finds its way to new replicas; `drain_ms` later it
    /// is cut. 0: never. Milliseconds.
    pub max_connection_age_ms: u64,
    /// A connection must bring its first request within this time, milliseconds.
    pub first_request_timeout_ms: u64,
    /// The headers of a later HTTP/1 request must arrive within this time; also how long a connection may idle. Milliseconds.
    pub header_read_timeout_ms: u64,
    /// A client that takes nothing of its answer for this long loses the connection, or the stream if it is HTTP/2, milliseconds.
    pub write_timeout_ms: u64,
    /// After SIGTERM, how long to go on taking requests while load balancers notice, milliseconds.
    pub lame_duck_ms: u64,
    /// Then how long requests in flight may take to finish, milliseconds.
    pub drain_timeout_ms: u64,
    /// What one HTTP/2 connection may hold.
    pub http2: Http2,
    /// TLS of the port.
    pub tls: tls::PortTls,
    /// What one caller may ask.
    pub rate_limit: rate_limit::Config,
    /// What one address may ask, whoever it says it is.
    pub address_limit: rate_limit::AddressConfig,
    /// Faults on purpose, for game days.
    pub fault_injection: fault::Config,
    /// How many requests may run at once, of those in flight.
    pub adaptive_limit: adaptive_limit::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_deadline_ms: 10_000,
            max_deadline_ms: 30_000,
            max_in_flight: 4_096,
            max_streams: 2_048,
            max_streams_per_caller: 32,
            max_stream_age_ms: 600_000,
            max_connections: 8_192,
            max_connections_per_address: 1_024,
            max_connection_age_ms: 300_000,
            first_request_timeout_ms: 10_000,
            header_read_timeout_ms: 30_000,
            write_timeout_ms: 30_000,
            lame_duck_ms: 0,
            drain_timeout_ms: 20_000,
            http2: Http2::default(),
            tls: tls::PortTls::default(),
            rate_limit: rate_limit::Config::default(),
            address_limit: rate_limit::AddressConfig::default(),
            fault_injection: fault::Config::default(),
            adaptive_limit: adaptive_limit::Config::default(),
        }
    }
}

impl config::Validate for Config {
    fn validate(&self) -> Result<(), config::Error> {
        let required = [
            ("server.default_deadline_ms", self.default_deadline_ms),
            ("server.max_deadline_ms", self.max_deadline_ms),
            ("server.max_in_flight", self.max_in_flight as u64),
            ("server.max_streams", self.max_streams as u64),
            ("server.max_streams_per_caller", self.max_streams_per_caller as u64),
            ("server.max_stream_age_ms", self.max_stream_age_ms),
            ("server.max_connections", self.max_connections as u64),
            ("server.first_request_ms", self.first_request_timeout_ms),
            ("server.header_read_ms", self.header_read_timeout_ms),
            ("server.write_stall_ms", self.write_timeout_ms),
            ("server.drain_ms", self.drain_timeout_ms),
        ];
        if let Err(text) = self.address_limit.proxies() {
            return Err(config::Error::rule("server.address_limit.trusted_proxies", format!("{text:?} is not an IP address")));
        }
        self.adaptive_limit.validate()?;
        if let Some((key, rule)) = self.http2.validate() {
            return Err(config::Error::rule(key, rule));
        }
        let limits = [
            ("server.rate_limit.burst", self.rate_limit.per_second, self.rate_limit.burst),
            ("server.address_limit.burst", self.address_limit.per_second, self.address_limit.burst),
        ];
        if let Some((key, ..)) = limits.iter().find(|(_, per_second, burst)| *per_second > 0 && *burst == 0) {
            return Err(config::Error::rule(key, "must be greater than 0, or per_second 0 for no limit"));
        }
        match required.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(config::Error::rule(key, "must be greater than 0")),
            None if self.max_connections > Semaphore::MAX_PERMITS => {
                Err(config::Error::rule("server.max_connections", format!("must not be greater than {}", Semaphore::MAX_PERMITS)))
            }
            None if self.default_deadline_ms > self.max_deadline_ms => {
                Err(config::Error::rule("server.default_deadline_ms", "must not be greater than max_deadline_ms"))
            }
            None => Ok(()),
        }
    }
}

/// `handler`, a router as a rule, behind all layers, ready to be served. `faults` are made from `config.faults` and shared with the admin
/// port.
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
        Protocol::Grpc => (Boundary::GrpcServer, AddressLimitLayer::disabled()),
    };
    let metrics = MetricsLayer::new(boundary).with_preregistered_series(&methods);
    // Who is believed was checked with the configuration.
    let proxies = config.address_limit.proxies().unwrap_or_default();
    ServiceBuilder::new()
        .map_request(|request: Request<B>| request.map(Body::new))
        .layer(RequestContextLayer(methods))
        .layer(ServerTraceLayer::new(protocol).with_trusted_proxies(proxies))
        .layer(metrics)
        .layer(RespondLayer(protocol))
        .layer(HttpGuardLayer(protocol))
        .layer(DeadlineLayer::new(
            protocol,
            Duration::from_millis(config.default_deadline_ms),
            Duration::from_millis(config.max_deadline_ms),
        ))
        .layer(ConcurrencyLimitLayer::new(config.max_in_flight))
        .layer(address_limit)
        .layer(AuthenticateLayer(verifier))
        .layer(PeerIdentityLayer)
        .layer(AuthorizeLayer(protocol))
        .layer(RateLimitLayer::new(protocol, &config.rate_limit))
        .layer(StreamsLayer::new(protocol, config))
        .layer(AdaptiveLimitLayer::new(protocol, &config.adaptive_limit))
        .layer(CatchPanicLayer::new())
        .layer(FaultLayer(faults))
        .layer(CurrentContextLayer)
        .service(handler)
}

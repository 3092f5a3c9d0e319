//! HTTP client stack for one origin, with the same layers as the gRPC client.

mod config;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Full, combinators::UnsyncBoxBody};
use tonic::body::Body;
use tower::{BoxError, Service, ServiceExt, layer::util::Identity};

use super::{
    InvalidConfig, StackParams,
    boxed::{BoxedStack, Call, CallFuture},
    layers,
};
use palisade_resilience::{
    circuit_breaker::{BreakerHandle, CircuitBreakerLayer},
    metrics::Boundary,
    rejection::Rejection,
    respond::Protocol,
    retry::RetryLayer,
    trace::ClientTraceLayer,
};
use palisade_transport::client::http::{Endpoint, Origin};

pub use config::HttpConfig;

/// Response body of an HTTP call; fails when the call times out.
pub type HttpBody = UnsyncBoxBody<Bytes, BoxError>;

/// Creates a client for HTTP calls to `target` (its name in metrics and on the admin port) below
/// `origin`: scheme, host, port, optional credentials and an optional base path.
///
/// `builder` configures TLS and proxies. Redirects are not followed, because they may lead to
/// another origin outside of this target. Only the stack retries, within its budget.
///
/// ```
/// use palisade_middleware::client::{self, HttpConfig};
///
/// let origin = "https://id.example".parse()?;
/// let config = HttpConfig::default();
/// let issuer = client::http("issuer", &origin, &config, reqwest::Client::builder())?;
/// // issuer.oneshot(Request::get("/keys").body(Bytes::new())?)
/// # let _ = issuer; Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn http(
    target: &'static str,
    origin: &reqwest::Url,
    config: &HttpConfig,
    builder: reqwest::ClientBuilder,
) -> Result<HttpClient, InvalidConfig> {
    config.validate()?;
    let origin = Origin::from_url(origin)?;
    let (address, port) = (origin.host(), origin.port());
    let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
    let endpoint = Endpoint::new(builder, connect_timeout, origin.clone())?;
    let params = StackParams {
        target,
        trace: ClientTraceLayer { protocol: Protocol::Http, server_address: address.clone(), server_port: Some(port) },
        hop: Boundary::HttpClient { address, port },
        retry: RetryLayer::http(target, &config.retry),
        breaker: CircuitBreakerLayer::new(target, &config.circuit_breaker).over(Protocol::Http),
        min_attempt_ms: config.retry.min_attempt_ms,
        call_timeout_ms: config.call_timeout_ms,
        attempt_timeout_ms: config.attempt_timeout_ms,
        max_in_flight: config.max_in_flight,
    };
    let breaker = params.breaker.handle();
    let stack = layers(params, Identity::new(), endpoint);
    let stack = stack.map_request(move |request| origin.resolve_uri(request)).map_response(|response| response.map(HttpBody::new));
    Ok(HttpClient { stack: Arc::new(BoxedStack { stack, into_error: std::convert::identity }), breaker })
}

/// HTTP client for one origin. Cheap to clone; clones share connections, circuit breaker and retry
/// budget.
///
/// A call starts in `call`, not at the first poll of its future: context and span are captured at
/// that time.
#[derive(Debug, Clone)]
pub struct HttpClient {
    stack: Arc<dyn Call<HttpBody, Arc<Rejection>>>,
    breaker: BreakerHandle,
}

impl HttpClient {
    /// Returns the circuit breaker of the target.
    pub fn breaker(&self) -> &BreakerHandle {
        &self.breaker
    }
}

/// Only the path, appended to the base path, and the query of a request URI are used.
impl Service<Request<Bytes>> for HttpClient {
    type Response = Response<HttpBody>;
    /// No response: a local rejection, or the transport error of the last attempt. An error status
    /// of the target is an `Ok` response.
    type Error = Arc<Rejection>;
    type Future = CallFuture<HttpBody, Arc<Rejection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        self.stack.call(request.map(|bytes| Body::new(Full::new(bytes))))
    }
}

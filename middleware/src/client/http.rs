//! The same stack around HTTP calls to one origin.

mod config;
mod endpoint;
mod origin;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Full, combinators::UnsyncBoxBody};
use tonic::body::Body;
use tower::{BoxError, Service, ServiceExt, layer::util::Identity};

use self::{endpoint::Endpoint, origin::Origin};
use super::{
    InvalidConfig, StackParams,
    boxed::{CallFuture, Call, BoxedStack},
    layers,
};
use crate::{
    circuit_breaker::{BreakerHandle, CircuitBreakerLayer},
    metrics::Boundary,
    rejection::Rejection,
    respond::Protocol,
    retry::RetryLayer,
    trace::ClientTraceLayer,
};

pub use config::HttpConfig;

/// The body of an answer over HTTP; in time, or an error.
pub type HttpBody = UnsyncBoxBody<Bytes, BoxError>;

/// A client for HTTP calls to `target` (its name in metrics, and to operators), which is all that is at `origin`: its scheme, host and port,
/// and credentials if it has any.
///
/// `builder` knows of TLS and proxies. Redirects are not followed: where they lead is another origin's business, and no attempt of
/// this call. Nothing is sent again but by the stack, which knows its budget.
///
/// ```
/// use palisade_middleware::client::{self, HttpConfig};
///
/// let origin = "https://id.example".parse()?;
/// let issuer = client::http("issuer", &origin, &HttpConfig::default(), reqwest::Client::builder())?;
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
    let endpoint = Endpoint::new(builder, config, origin.clone())?;
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

/// A client for one origin. Cheap to clone; clones share the connections, the breaker and the budgets.
///
/// A call begins in `call`, not when its future is first polled: the context ([`crate::context`]) and the span are those of that moment.
#[derive(Debug, Clone)]
pub struct HttpClient {
    stack: Arc<dyn Call<HttpBody, Arc<Rejection>>>,
    breaker: BreakerHandle,
}

impl HttpClient {
    /// The breaker of its target.
    pub fn breaker(&self) -> &BreakerHandle {
        &self.breaker
    }
}

/// Of a request's URI only the path and the query count.
impl Service<Request<Bytes>> for HttpClient {
    type Response = Response<HttpBody>;
    /// No answer came: what this stack refused, or what happened to the last attempt. Whatever the target answers is an answer.
    type Error = Arc<Rejection>;
    type Future = CallFuture<HttpBody, Arc<Rejection>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        self.stack.call(request.map(|bytes| Body::new(Full::new(bytes))))
    }
}

//! Retries with exponential backoff, full jitter and a retry budget per target (gRFC A6), within
//! the deadline of the call.
//!
//! A call may be retried if a repeated call gets the answer of the first: its method is marked so
//! ([`MethodContracts`]; over HTTP it is safe, RFC 9110 §9.2.1), or it carries an idempotency key
//! ([`IdempotencyKeyed`]). A write whose first attempt was applied, but whose answer was lost,
//! would otherwise be answered with a failed precondition or "not found". A request that was
//! provably never sent is sent again once, whatever the method and at no cost (transparent retry).
//! Only UNAVAILABLE, timeouts and responses with a pushback are retried; over HTTP 408, 429 with
//! `Retry-After`, 502, 503 and 504. A unary response is read to its end, up to 1 MiB, before it is
//! passed on; a longer one is final once that much was read. Over HTTP, where the head carries the
//! status, a response is final once its head was read.
//!
//! Retries of nested services multiply. A call that our own caller is already retrying (gRFC A6,
//! `grpc-previous-rpc-attempts`) is therefore not retried here. After retries in vain the response
//! says so: its metadata has `grpc-retry-pushback-ms: -1`, which [`pushback()`] reads as
//! [`Retry::Never`](crate::rejection::Retry::Never), so that a service can pass it on in its own
//! response. A failure also names the target (`x-failure-origin`): passed on unchanged, it does not
//! open the circuit breakers of our callers. HTTP has no such metadata; over HTTP only local
//! rejections carry this information.

mod attempts;
mod back_off;
mod budget;
mod call;
mod config;
#[cfg(feature = "descriptors")]
mod descriptors;
mod idempotent;
mod metrics;
mod outcome;
mod peek;
mod pushback;
mod replay;
#[cfg(feature = "opentelemetry")]
mod span_event;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::body::Body;
use tower::{Layer, Service};

use self::{budget::Budget, idempotent::IdempotencyPolicy, metrics::Metrics};
use crate::{metrics::register_observable, rejection::Rejection};

pub use attempts::Attempts;
pub use config::{Config, InvalidConfig};
pub use idempotent::{IdempotencyKeyed, MethodContracts};
pub use peek::PeekedBody;
pub use pushback::pushback;
pub(crate) use pushback::{pushback_of_head, pushback_of_http};

/// Number of the attempt that a request belongs to; in the extensions of all requests of a call but
/// the first. A transparent retry repeats the number of the request that was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt(pub u32);

/// Retries the calls to one target; all services of one layer share one retry budget. Create only
/// one per process and target, because its series carry the target's label.
///
/// ```
/// use palisade_resilience::{rejection::Rejection, retry::{Config, RetryLayer}};
/// # use tonic::{Status, body::Body};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let answers = [Status::unavailable("not yet"), Status::ok("now")].into_iter();
/// # let answers = std::sync::Arc::new(parking_lot::Mutex::new(answers));
/// let call = service_fn(move |_| {
///     let answer = answers.lock().next().unwrap().into_http::<Body>();
///     std::future::ready(Ok::<_, Rejection>(answer))
/// });
/// let idempotent = ["/shop.v1.Products/Find"].into_iter().collect();
/// let layer = RetryLayer::new("products", &Config::default(), idempotent);
/// let request = http::Request::post("/shop.v1.Products/Find").body(Body::empty()).unwrap();
/// let answer = layer.layer(call).oneshot(request).await.unwrap();
/// assert_eq!(answer.headers()["grpc-status"], "0");
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct RetryLayer(Arc<Policy>);

#[derive(Debug)]
struct Policy {
    target: &'static str,
    config: Config,
    idempotency: IdempotencyPolicy,
    budget: Arc<Budget>,
    metrics: Metrics,
}

impl RetryLayer {
    /// Creates a layer for gRPC calls to `target`; methods that its `contracts` mark as idempotent
    /// may be retried.
    pub fn new(target: &'static str, config: &Config, contracts: MethodContracts) -> Self {
        Self::build(target, config, IdempotencyPolicy::Grpc(contracts))
    }

    /// Creates a layer for HTTP calls to `target`; safe HTTP methods may be retried.
    pub fn http(target: &'static str, config: &Config) -> Self {
        Self::build(target, config, IdempotencyPolicy::Http)
    }

    fn build(target: &'static str, config: &Config, repeatable: IdempotencyPolicy) -> Self {
        let budget = Budget::new(config);
        let metrics = Metrics::new(target);
        let tokens = crate::gauge!("palisade.retry.budget.tokens", "target" => target);
        tokens.set(budget.tokens());
        register_observable(&budget, move |budget| tokens.set(budget.tokens()));
        Self(Arc::new(Policy { target, config: config.clone(), idempotency: repeatable, budget, metrics }))
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, policy: self.0.clone() }
    }
}

/// See [`RetryLayer`].
#[derive(Debug, Clone)]
pub struct Retry<S> {
    inner: S,
    policy: Arc<Policy>,
}

impl<S, R> Service<Request<Body>> for Retry<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Rejection> + Clone,
    R: HttpBody + Unpin,
{
    type Response = Response<PeekedBody<R>>;
    type Error = Rejection;
    /// Boxed, because it is the largest future of the stack and the outer layers move it.
    type Future = Pin<Box<Attempts<S, R>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service polled ready makes the call; the clone takes its place.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        Box::pin(Attempts::new(self.policy.clone(), ready, request))
    }
}

#[cfg(test)]
mod tests;

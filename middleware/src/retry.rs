//! Tries a failed call again, if that can help: seldom, briefly, within its deadline and within a budget per target.
//!
//! A call may be repeated if its method is idempotent ([`IdempotentMethods`], over HTTP as RFC 9110 §9.2.2 has it) or it carries an
//! idempotency key ([`IdempotencyKeyed`]). What was provably never sent is tried again once whatever it is, at no cost. Only UNAVAILABLE
//! and timeouts are worth another attempt, and whatever the server asked for; over HTTP 408, 429 with `Retry-After`, 502, 503 and 504. An
//! answer is final once any of its data was read, and over HTTP, where the head tells all, once its head was.
//!
//! Retries of nested services multiply. So a call that our own caller is retrying already (gRFC A6, `grpc-previous-rpc-attempts`) is
//! not retried here, and when we have tried in vain the answer says so: its metadata then has `grpc-retry-pushback-ms: -1`, which
//! [`advice`] reads as [`Retry::Never`](crate::rejection::Retry::Never), for whoever makes our own answer of it to pass on. A failure
//! also names the target (`x-failure-origin`): passed on as it is, it does not open our own callers' breakers. HTTP has no words for any
//! of this: there only refusals of our own say so.

mod pushback;
mod attempts;
mod back_off;
mod budget;
mod call;
mod config;
mod idempotent;
mod metrics;
mod outcome;
mod peek;
mod replay;

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

pub use pushback::pushback;
pub(crate) use pushback::{pushback_of_head, pushback_of_http};
pub use attempts::Attempts;
pub use config::{Config, InvalidConfig};
pub use idempotent::{IdempotencyKeyed, IdempotentMethods};
pub use peek::PeekedBody;

/// Which attempt of its call a request is; in the extensions of all requests of a call but the first. One that was certainly not sent,
/// and is sent again, repeats a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt(pub u32);

/// Retries the calls to one target; all services it makes share one budget. A service has one for each target: its series are the target's.
///
/// ```
/// use palisade_middleware::{rejection::Rejection, retry::{Config, RetryLayer}};
/// # use tonic::{Status, body::Body};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let answers = [Status::unavailable("not yet"), Status::ok("now")].into_iter();
/// # let answers = std::sync::Arc::new(parking_lot::Mutex::new(answers));
/// let call = service_fn(move |_| std::future::ready(Ok::<_, Rejection>(answers.lock().next().unwrap().into_http::<Body>())));
/// let layer = RetryLayer::new("products", &Config::default(), ["/shop.v1.Products/Find"].into_iter().collect());
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
    /// Retries gRPC calls to `target`, whose `idempotent` methods may be repeated.
    pub fn new(target: &'static str, config: &Config, idempotent: IdempotentMethods) -> Self {
        Self::build(target, config, IdempotencyPolicy::Grpc(idempotent))
    }

    /// Retries HTTP calls to `target`, of which those may be repeated whose method says so.
    pub fn http(target: &'static str, config: &Config) -> Self {
        Self::build(target, config, IdempotencyPolicy::Http)
    }

    fn build(target: &'static str, config: &Config, repeatable: IdempotencyPolicy) -> Self {
        let budget = Budget::new(config);
        let metrics = Metrics::new(target);
        let tokens = ::metrics::gauge!("palisade.retry.budget.tokens", "target" => target);
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
    /// Boxed: the layers around it hand it on one by one, and it is the largest.
    type Future = Pin<Box<Attempts<S, R>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        Box::pin(Attempts::new(self.policy.clone(), ready, request))
    }
}

#[cfg(test)]
mod tests;

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

mod advice;
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

use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt};

use self::{
    budget::Budget,
    call::Call,
    idempotent::Repeatable,
    metrics::{Denied, Metrics},
    outcome::Outcome,
};
use crate::{rejection::Rejection, respond::Protocol, streams::Streaming};

pub use advice::advice;
pub(crate) use advice::{advice_of_head, advice_of_http};
pub use config::{Config, InvalidConfig};
pub use idempotent::{IdempotencyKeyed, IdempotentMethods};
pub use peek::Peeked;

/// Which attempt of its call a request is; in the extensions of all requests of a call but the first. One that was certainly not sent,
/// and is sent again, repeats a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt(pub u32);

/// Retries the calls to one target; all services it makes share one budget.
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
    repeatable: Repeatable,
    budget: Arc<Budget>,
    metrics: Metrics,
}

impl RetryLayer {
    /// Retries gRPC calls to `target`, whose `idempotent` methods may be repeated.
    pub fn new(target: &'static str, config: &Config, idempotent: IdempotentMethods) -> Self {
        Self::of(target, config, Repeatable::Grpc(idempotent))
    }

    /// Retries HTTP calls to `target`, of which those may be repeated whose method says so.
    pub fn http(target: &'static str, config: &Config) -> Self {
        Self::of(target, config, Repeatable::Http)
    }

    fn of(target: &'static str, config: &Config, repeatable: Repeatable) -> Self {
        let budget = Budget::new(config);
        let metrics = Metrics::new(target);
        metrics.tokens(budget.tokens());
        Self(Arc::new(Policy { target, config: config.clone(), repeatable, budget, metrics }))
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
    S: Service<Request<Body>, Response = Response<R>, Error = Rejection, Future: Send> + Clone + Send + 'static,
    R: HttpBody<Data: Send, Error: Send> + Unpin + Send + 'static,
{
    type Response = Response<Peeked<R>>;
    type Error = Rejection;
    /// The one box of the stack: the attempts are a loop with state between them.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Rejection>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        Box::pin(self.policy.clone().run(ready, request))
    }
}

impl Policy {
    async fn run<S, R>(self: Arc<Self>, mut service: S, request: Request<Body>) -> Result<Response<Peeked<R>>, Rejection>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Rejection>,
        R: HttpBody + Unpin,
    {
        let _in_flight = self.budget.call();
        let (parts, body) = request.into_parts();
        let (mut body, kept) = replay::keep(body).await;
        let mut call = Call::new(&self, &parts, kept.is_some());
        let protocol = self.repeatable.protocol();
        // The first piece of a stream may be long in coming; its head says whether it was refused. Over HTTP every head does.
        let whole = protocol == Protocol::Grpc && parts.extensions.get::<Streaming>().is_none();
        // What came of the attempt before.
        let mut before = None;
        loop {
            let answer = service.call(call.request(&parts, body)).await;
            let mut answer = outcome::look(answer, whole && call.may_repeat()).await;
            let outcome = outcome::of(protocol, &mut answer);
            let pause = call.next(outcome, Instant::now());
            let (Some(pause), Some(kept)) = (pause, &kept) else {
                // That we refused to go on says less than what made us try.
                return call.finish(if outcome == Outcome::Refused { before.unwrap_or(answer) } else { answer });
            };
            call.tell(outcome, &answer, pause);
            // The rest of its body would keep its stream, and its measurement, open.
            let answer = answer.map(|response| response.map(Peeked::without_rest));
            tokio::time::sleep(pause).await;
            if !matches!(service.ready().now_or_never(), Some(Ok(_))) {
                // To wait for a place would be to queue retries.
                call.deny(Denied::NotReady);
                return call.finish(answer);
            }
            before = Some(answer);
            body = replay::again(kept);
        }
    }
}

#[cfg(test)]
mod tests;

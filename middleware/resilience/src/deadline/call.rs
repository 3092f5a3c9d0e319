//! Call deadline: the remaining time of the current request, or rejection of the call.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::Either;
use http::Request;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{CallDeadline, StreamEnd, expired, grpc_timeout};
use crate::{context, rejection::Rejection, time_limit::TimeLimit};

/// Deadline of a call with all its attempts: rejects a call that cannot succeed.
///
/// It has no timer of its own: [`CallDeadline`] limits every attempt
/// ([`super::AttemptTimeoutLayer`]) and every backoff ([`crate::retry`]), and nothing else in the
/// stack waits.
///
/// ```
/// use std::time::Duration;
/// use palisade_resilience::context::{self, Context};
/// use palisade_resilience::deadline::TotalDeadlineLayer;
/// use palisade_resilience::rejection::{Rejection, reasons};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let call = service_fn(async |_| Ok::<_, Rejection>("answer"));
/// let layer = TotalDeadlineLayer {
///     limit: Duration::from_secs(9),
///     min_attempt: Duration::from_millis(5),
/// };
/// let products = layer.layer(call);
/// let late = Context::background().with_deadline(tokio::time::Instant::now());
/// let call = products.oneshot(http::Request::new(()));
/// let rejected = context::scope(late, call).await.unwrap_err();
/// assert_eq!(rejected.reason(), &reasons::DEADLINE_EXCEEDED);
/// # });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TotalDeadlineLayer {
    /// Maximum time of a call, whatever the context allows.
    pub limit: Duration,
    /// Minimum remaining time. With less time left the call is rejected without an attempt.
    pub min_attempt: Duration,
}

impl<S> Layer<S> for TotalDeadlineLayer {
    type Service = TotalDeadline<S>;

    fn layer(&self, inner: S) -> TotalDeadline<S> {
        TotalDeadline { inner, layer: *self }
    }
}

/// See [`TotalDeadlineLayer`].
#[derive(Debug, Clone)]
pub struct TotalDeadline<S> {
    inner: S,
    layer: TotalDeadlineLayer,
}

impl<S, B> Service<Request<B>> for TotalDeadline<S>
where
    S: Service<Request<B>, Error = Rejection>,
{
    type Response = S::Response;
    type Error = Rejection;
    type Future = Either<S::Future, Ready<Result<S::Response, Rejection>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = Instant::now();
        let inherited = context::with_current(|context| context.deadline).flatten();
        let inherited = inherited.map(|limit| limit.shortened_by(safety_margin(limit.remaining(now)), now));
        // `tonic::Request::set_timeout` applies to the call, not to each attempt. It is chosen per
        // call, not by the operator.
        let requested = request.headers().get(grpc_timeout::HEADER).and_then(grpc_timeout::parse);
        let requested = requested.map(|timeout| TimeLimit::caller(now, timeout, self.layer.limit));
        let given = [inherited, requested].into_iter().flatten().reduce(TimeLimit::earlier);
        if let Some(given) = given.filter(|given| given.remaining(now) <= self.layer.min_attempt) {
            return Either::Right(ready(Err(expired().without_evidence(given.origin()))));
        }
        if let Some(given) = given {
            request.extensions_mut().insert(StreamEnd(given));
        }
        let own = TimeLimit::operator(now, self.layer.limit);
        request.extensions_mut().insert(CallDeadline(given.map_or(own, |given| own.earlier(given))));
        Either::Left(self.inner.call(request))
    }
}

/// Returns the share of `remaining` for the way back and our own response.
fn safety_margin(remaining: Duration) -> Duration {
    (remaining / 50).max(Duration::from_millis(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{context::Context, rejection::reasons};

    async fn deadline_seen_inside(context: Context) -> Result<Instant, Rejection> {
        let inner =
            tower::service_fn(async |request: Request<()>| Ok::<_, Rejection>(request.extensions().get::<CallDeadline>().unwrap().0.at()));
        let mut service = TotalDeadlineLayer { limit: Duration::from_secs(5), min_attempt: Duration::from_millis(10) }.layer(inner);
        context::scope(context, async { service.call(Request::new(())).await }).await
    }

    #[tokio::test(start_paused = true)]
    async fn call_deadline_keeps_a_safety_margin() {
        let now = Instant::now();
        for (remaining_ms, left_ms) in [(1000, 980), (50, 48), (60_000, 5_000)] {
            let context = Context::background().with_deadline(now + Duration::from_millis(remaining_ms));
            assert_eq!(deadline_seen_inside(context).await.unwrap() - now, Duration::from_millis(left_ms));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn call_deadline_applies_without_context_deadline() {
        let now = Instant::now();
        assert_eq!(deadline_seen_inside(Context::background()).await.unwrap() - now, Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn call_is_rejected_below_min_attempt() {
        for (remaining_ms, sent) in [(0, false), (2, false), (12, false), (13, true)] {
            let context = Context::background().with_deadline(Instant::now() + Duration::from_millis(remaining_ms));
            let answer = deadline_seen_inside(context).await.map_err(|refusal| refusal.reason());
            assert_eq!(answer.is_ok(), sent, "{remaining_ms} ms");
            assert!(answer.is_ok() || answer == Err(&reasons::DEADLINE_EXCEEDED));
        }
    }
}

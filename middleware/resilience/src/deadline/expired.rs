//! Rejection of requests whose deadline passed before the handler started.

use http::Request;
use tokio::time::Instant;
use tower::Layer;

use super::expired;
use crate::{
    context::Context,
    filter::{Filter, Predicate},
    rejection::Rejection,
};

/// Rejects a request whose deadline has passed, so that no work is done in vain.
///
/// Sits next to the handler, inside everything that can take time: queues, faults, and reading the
/// request body.
///
/// ```
/// use palisade_resilience::{context::Context, deadline::RejectExpiredLayer, rejection::reasons};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>("done"));
/// let mut request = http::Request::new(());
/// let now = tokio::time::Instant::now();
/// request.extensions_mut().insert(Context::background().with_deadline(now));
/// let rejected = RejectExpiredLayer.layer(handler).oneshot(request).await.unwrap_err();
/// assert_eq!(rejected.reason(), &reasons::DEADLINE_EXCEEDED);
/// # });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RejectExpiredLayer;

impl<S> Layer<S> for RejectExpiredLayer {
    type Service = Filter<S, Self>;

    fn layer(&self, inner: S) -> Filter<S, Self> {
        Filter::new(inner, *self)
    }
}

impl Predicate for RejectExpiredLayer {
    fn check<B>(&self, request: Request<B>) -> Result<Request<B>, Rejection> {
        match Context::of(&request).and_then(|context| context.deadline).filter(|limit| limit.has_passed(Instant::now())) {
            None => Ok(request),
            Some(limit) => Err(expired().without_evidence(limit.origin())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{rejection::reasons, time_limit::TimeLimit};

    #[tokio::test(start_paused = true)]
    async fn expired_request_never_reaches_handler() {
        let handler = service_fn(async |_: Request<()>| Ok::<_, Infallible>(()));
        let now = Instant::now();
        for (left, passes) in [(None, true), (Some(0), false), (Some(1), true)] {
            let deadline = left.map(|left| TimeLimit::caller(now, Duration::from_nanos(left), Duration::from_secs(1)));
            let mut request = Request::new(());
            request.extensions_mut().insert(Context { deadline, ..Context::background() });
            let answer = RejectExpiredLayer.layer(handler).oneshot(request).await.map_err(|rejection| rejection.reason());
            assert_eq!(answer, if passes { Ok(()) } else { Err(&reasons::DEADLINE_EXCEEDED) }, "{left:?}");
        }
    }
}

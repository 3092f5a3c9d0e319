//! Brings the finding on one call to whoever waits for it: at the head of the answer, at its end, or never.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    breaker::Permit,
    event::CallOutcome,
    classify::{self, Classification},
};
use crate::{
    body::{End, BodyObserver, InstrumentedBody},
    rejection::Rejection,
    respond::Protocol,
};

/// Waits for the finding on one call. Dropped without one, the caller has given up.
pub trait RecordOutcome: Sized {
    /// The name of the service that was called.
    fn target(&self) -> &'static str;

    /// The answer has begun, its status is still to come.
    #[must_use]
    fn headers_received(self, now: Instant) -> Self;

    /// The call is over; the target may have asked us to stay away for as long as `hint`.
    fn report(self, finding: Classification, hint: Option<Duration>, now: Instant);
}

impl RecordOutcome for Permit {
    fn target(&self) -> &'static str {
        self.name()
    }

    fn headers_received(self, now: Instant) -> Self {
        Self::headers_received(self, now)
    }

    fn report(self, finding: Classification, hint: Option<Duration>, now: Instant) {
        Self::report(self, finding, hint, now);
    }
}

pin_project! {
    /// A call whose finding `P` waits for.
    #[derive(Debug)]
    pub struct OutcomeFuture<F, P> {
        #[pin]
        inner: F,
        protocol: Protocol,
        pending: Option<P>,
        stream: bool,
    }
}

impl<F, P> OutcomeFuture<F, P> {
    /// The finding on a `stream` is that it began: what ends it later says nothing of the target.
    pub(crate) fn new(protocol: Protocol, inner: F, pending: P, stream: bool) -> Self {
        Self { inner, protocol, pending: Some(pending), stream }
    }
}

impl<F, R, P> Future for OutcomeFuture<F, P>
where
    F: Future<Output = Result<Response<R>, Rejection>>,
    R: Body,
    P: RecordOutcome,
{
    type Output = Result<Response<InstrumentedBody<R, OutcomeObserver<P>>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Not left in the future meanwhile: should the poll panic, it is dropped in the panic and tells of it.
        let pending = this.pending.take().expect("a future is not polled after it was ready");
        let Poll::Ready(answer) = this.inner.poll(cx) else {
            *this.pending = Some(pending);
            return Poll::Pending;
        };
        let now = Instant::now();
        let pending = match classify::classify_head(*this.protocol, &answer, pending.target()) {
            Some((finding, hint)) => {
                pending.report(finding, hint, now);
                None
            }
            None if *this.stream => {
                pending.headers_received(now).report(CallOutcome::Success.into(), None, now);
                None
            }
            None => Some(pending.headers_received(now)),
        };
        let unsettled = OutcomeObserver { protocol: *this.protocol, pending };
        Poll::Ready(answer.map(|response| response.map(|body| InstrumentedBody::new(body, unsettled))))
    }
}

/// Brings the finding from the end of a body; `None` if the head had it.
#[derive(Debug)]
pub struct OutcomeObserver<P> {
    protocol: Protocol,
    pending: Option<P>,
}

impl<P: RecordOutcome> BodyObserver for OutcomeObserver<P> {
    type Entered<'a>
        = ()
    where
        P: 'a;

    fn enter(&mut self) {}

    fn on_end(&mut self, end: End<'_>) {
        let Some(pending) = self.pending.take() else { return };
        if let Some((finding, hint)) = classify::classify_end(self.protocol, end, pending.target()) {
            pending.report(finding, hint, Instant::now());
        }
    }
}

//! Reports the outcome of a call: at the response head, at the end of the body, or when it is
//! dropped.

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
    classify::{self, Classification},
    event::CallOutcome,
};
use crate::{
    body::{BodyObserver, End, InstrumentedBody},
    protocol::Protocol,
    rejection::Rejection,
    streams::ResponseKind,
    time_limit::NoEvidence,
};

/// Receives the outcome of one call. Dropped without one if the caller cancelled.
pub trait RecordOutcome: Sized {
    /// Returns the name of the called service.
    fn target(&self) -> &'static str;

    /// Records the response head, with the status still to come.
    #[must_use]
    fn headers_received(self, now: Instant) -> Self;

    /// Records the response head of a call whose response may be a stream: its duration says
    /// nothing from here on. Returns `None` if the head was taken as the outcome.
    fn undeclared_headers_received(self, now: Instant) -> Option<Self>;

    /// Reports the outcome; `hint` is the retry delay that the target asked for.
    fn report(self, finding: Classification, hint: Option<Duration>, now: Instant);
}

impl RecordOutcome for Permit {
    fn target(&self) -> &'static str {
        self.name()
    }

    fn headers_received(self, now: Instant) -> Self {
        Self::headers_received(self, now)
    }

    fn undeclared_headers_received(self, now: Instant) -> Option<Self> {
        Self::undeclared_headers_received(self, now)
    }

    fn report(self, finding: Classification, hint: Option<Duration>, now: Instant) {
        Self::report(self, finding, hint, now);
    }
}

pin_project! {
    /// Future of a call that reports its outcome to `P`.
    #[derive(Debug)]
    pub struct OutcomeFuture<F, P> {
        #[pin]
        inner: F,
        protocol: Protocol,
        pending: Option<P>,
        kind: ResponseKind,
    }
}

impl<F, P> OutcomeFuture<F, P> {
    /// The response head is the outcome of a stream; its end says nothing about the target.
    pub fn new(protocol: Protocol, inner: F, pending: P, kind: ResponseKind) -> Self {
        Self { inner, protocol, pending: Some(pending), kind }
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
        // Taken out during the poll: if the poll panics, it is dropped while panicking and records
        // a failure.
        let pending = this.pending.take().expect("future polled after completion");
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
            None if *this.kind == ResponseKind::Undeclared => pending.undeclared_headers_received(now),
            None if *this.kind == ResponseKind::Stream => {
                pending.headers_received(now).report(CallOutcome::Success.into(), None, now);
                None
            }
            None => Some(pending.headers_received(now)),
        };
        let no_evidence = answer.as_ref().ok().and_then(|response| response.extensions().get().copied());
        let unsettled = OutcomeObserver { protocol: *this.protocol, pending, no_evidence };
        Poll::Ready(answer.map(|response| InstrumentedBody::observe(response, unsettled)))
    }
}

/// Reports the outcome at the end of a body; `None` if the head had it.
#[derive(Debug)]
pub struct OutcomeObserver<P> {
    protocol: Protocol,
    pending: Option<P>,
    no_evidence: Option<NoEvidence>,
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
            pending.report(classify::unless_chosen_by_caller(finding, self.no_evidence), hint, Instant::now());
        }
    }
}

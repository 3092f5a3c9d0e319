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
    transition::Verdict,
    verdict::{self, Finding},
};
use crate::{
    body::{End, Observe, Observed},
    rejection::Rejection,
    respond::Protocol,
};

/// Waits for the finding on one call. Dropped without one, the caller has given up.
pub trait Settle: Sized {
    /// The name of the service that was called.
    fn target(&self) -> &'static str;

    /// The answer has begun, its status is still to come.
    #[must_use]
    fn begun(self, now: Instant) -> Self;

    /// The call is over; the target may have asked us to stay away for as long as `hint`.
    fn settle(self, finding: Finding, hint: Option<Duration>, now: Instant);
}

impl Settle for Permit {
    fn target(&self) -> &'static str {
        self.name()
    }

    fn begun(self, now: Instant) -> Self {
        Self::begun(self, now)
    }

    fn settle(self, finding: Finding, hint: Option<Duration>, now: Instant) {
        Self::settle(self, finding, hint, now);
    }
}

pin_project! {
    /// A call whose finding `P` waits for.
    #[derive(Debug)]
    pub struct Settling<F, P> {
        #[pin]
        inner: F,
        protocol: Protocol,
        pending: Option<P>,
        stream: bool,
    }
}

impl<F, P> Settling<F, P> {
    /// The finding on a `stream` is that it began: what ends it later says nothing of the target.
    pub(crate) fn new(protocol: Protocol, inner: F, pending: P, stream: bool) -> Self {
        Self { inner, protocol, pending: Some(pending), stream }
    }
}

impl<F, R, P> Future for Settling<F, P>
where
    F: Future<Output = Result<Response<R>, Rejection>>,
    R: Body,
    P: Settle,
{
    type Output = Result<Response<Observed<R, Unsettled<P>>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Not left in the future meanwhile: should the poll panic, it is dropped in the panic and tells of it.
        let pending = this.pending.take().expect("a future is not polled after it was ready");
        let Poll::Ready(answer) = this.inner.poll(cx) else {
            *this.pending = Some(pending);
            return Poll::Pending;
        };
        let now = Instant::now();
        let pending = match verdict::at_head(*this.protocol, &answer, pending.target()) {
            Some((finding, hint)) => {
                pending.settle(finding, hint, now);
                None
            }
            None if *this.stream => {
                pending.begun(now).settle(Verdict::Success.into(), None, now);
                None
            }
            None => Some(pending.begun(now)),
        };
        let unsettled = Unsettled { protocol: *this.protocol, pending };
        Poll::Ready(answer.map(|response| response.map(|body| Observed::new(body, unsettled))))
    }
}

/// Brings the finding from the end of a body; `None` if the head had it.
#[derive(Debug)]
pub struct Unsettled<P> {
    protocol: Protocol,
    pending: Option<P>,
}

impl<P: Settle> Observe for Unsettled<P> {
    type Entered<'a>
        = ()
    where
        P: 'a;

    fn enter(&mut self) {}

    fn end(&mut self, end: End<'_>) {
        let Some(pending) = self.pending.take() else { return };
        if let Some((finding, hint)) = verdict::at_end(self.protocol, end, pending.target()) {
            pending.settle(finding, hint, Instant::now());
        }
    }
}

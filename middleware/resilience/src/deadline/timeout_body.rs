//! Timeout of a whole response, head and body.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::{Elapsed, elapsed};
use crate::{rejection::Rejection, respond::Protocol};

/// Timer of the whole response; moves from the future into the body.
#[derive(Debug)]
pub(super) struct ResponseTimer {
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
    protocol: Protocol,
    role: Role,
    /// Time limit after the response head.
    body_timeout: BodyTimeout,
    timeouts: metrics::Counter,
}

/// Time limit of a body, after the response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyTimeout {
    /// The remaining time.
    Remaining,
    /// A stream that ends at this time.
    Until(Instant),
    /// A stream without a time limit.
    Unlimited,
}

/// Which side enforces the timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Our own response: a timeout is logged.
    Server,
    /// The response of a called service.
    Client,
}

impl ResponseTimer {
    /// Starts a timer that expires `limit` after `now`.
    pub(super) fn new(now: Instant, limit: Duration, (side, protocol): (Role, Protocol), expiries: metrics::Counter) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep_until(now + limit)),
            limit,
            protocol,
            role: side,
            body_timeout: BodyTimeout::Remaining,
            timeouts: expiries,
        }
    }

    /// Turns it into the timer of a stream: the limit applies to the head, `end` to the rest, if
    /// there is one.
    pub(super) fn for_stream(self, end: Option<Instant>) -> Self {
        Self { body_timeout: end.map_or(BodyTimeout::Unlimited, BodyTimeout::Until), ..self }
    }

    /// Returns the timer of the body, after the response head.
    fn into_body_timer(mut self) -> Option<Self> {
        match self.body_timeout {
            BodyTimeout::Remaining => Some(self),
            BodyTimeout::Unlimited => None,
            BodyTimeout::Until(end) => {
                self.limit += end.saturating_duration_since(Instant::now());
                self.sleep.as_mut().reset(end);
                Some(self)
            }
        }
    }

    /// Waits for the timeout and counts it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.sleep.as_mut().poll(cx));
        self.timeouts.increment(1);
        Poll::Ready(())
    }
}

pin_project! {
    /// Future of all layers of this module: a rejection, or a response with a timeout.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        Refused { rejection: Option<Rejection> },
        Running { #[pin] inner: F, timer: Option<ResponseTimer> },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn refused(rejection: Rejection) -> Self {
        Self { state: State::Refused { rejection: Some(rejection) } }
    }

    pub(super) fn running(inner: F, timer: ResponseTimer) -> Self {
        Self { state: State::Running { inner, timer: Some(timer) } }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<Rejection>,
{
    type Output = Result<Response<TimeoutBody<B>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { rejection } => Poll::Ready(Err(rejection.take().expect("future polled after completion"))),
            StateProjection::Running { inner, timer } => {
                // A response that is ready counts, however late this poll is.
                if let Poll::Ready(result) = inner.poll(cx) {
                    let timer = timer.take().and_then(ResponseTimer::into_body_timer);
                    return Poll::Ready(
                        result.map(|response| response.map(|body| TimeoutBody { body, timer, cut: false })).map_err(Into::into),
                    );
                }
                let Some(timer) = timer else { return Poll::Pending };
                ready!(timer.poll(cx));
                Poll::Ready(Err(elapsed(timer.limit)))
            }
        }
    }
}

pin_project! {
    /// A body with a timeout: gRPC gets trailers with DEADLINE_EXCEEDED, HTTP an error.
    #[derive(Debug)]
    pub struct TimeoutBody<B> {
        #[pin]
        body: B,
        // `None` for a stream without a time limit.
        timer: Option<ResponseTimer>,
        cut: bool,
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let this = self.project();
        if *this.cut {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(timer) = this.timer else { return Poll::Pending };
        ready!(timer.poll(cx));
        *this.cut = true;
        let (limit, protocol, stream) = (timer.limit, timer.protocol, timer.body_timeout != BodyTimeout::Remaining);
        if timer.role == Role::Server && !stream {
            elapsed(limit).log();
        }
        if stream && protocol == Protocol::Http {
            // An HTTP stream has no end marker: ended where the caller asked for it, it is
            // complete.
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match protocol {
            Protocol::Grpc => Ok(Frame::trailers(trailers(limit))),
            Protocol::Http => Err(Box::new(Elapsed(limit))),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.cut || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn trailers(limit: Duration) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let written = tonic::Status::from(elapsed(limit)).add_header(&mut trailers);
    debug_assert!(written.is_ok(), "the status details are valid header values");
    trailers
}

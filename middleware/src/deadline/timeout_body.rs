//! A response, head and body, that must be complete in time.

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

/// One timer for the whole response: it moves from the future into the body.
#[derive(Debug)]
pub(super) struct ResponseTimer {
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
    protocol: Protocol,
    role: Role,
    /// What becomes of it once the answer has begun.
    body_timeout: BodyTimeout,
    timeouts: metrics::Counter,
}

/// How long the rest of an answer may take, once it has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyTimeout {
    /// What is left.
    Remaining,
    /// A stream, until this moment.
    Until(Instant),
    /// A stream, for ever.
    Unlimited,
}

/// Whose answer has to come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Ours: that it was cut is told in the log.
    Server,
    /// That of whom we called.
    Client,
}

impl ResponseTimer {
    /// Runs out `limit` after `now`.
    pub(super) fn new(now: Instant, limit: Duration, (side, protocol): (Role, Protocol), expiries: metrics::Counter) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(now + limit)), limit, protocol, role: side, body_timeout: BodyTimeout::Remaining, timeouts: expiries }
    }

    /// The same, of a stream: its beginning has to come in time, its rest until `end`, if there is one.
    pub(super) fn for_stream(self, end: Option<Instant>) -> Self {
        Self { body_timeout: end.map_or(BodyTimeout::Unlimited, BodyTimeout::Until), ..self }
    }

    /// The answer has begun.
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

    /// Ready, and counted, when time has run out.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.sleep.as_mut().poll(cx));
        self.timeouts.increment(1);
        Poll::Ready(())
    }
}

pin_project! {
    /// The future of every layer of this module: a refusal, or a response that has to come in time.
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
            StateProjection::Refused { rejection } => {
                Poll::Ready(Err(rejection.take().expect("a future is not polled after it was ready")))
            }
            StateProjection::Running { inner, timer } => {
                // An answer that is there counts, however late this poll comes.
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
    /// A body that ends in time: if late, gRPC gets trailers with DEADLINE_EXCEEDED, HTTP an error.
    #[derive(Debug)]
    pub struct TimeoutBody<B> {
        #[pin]
        body: B,
        // A stream may go on for ever.
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
            // It has no end of its own: where the caller wants it to end it is whole.
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
    debug_assert!(written.is_ok(), "our own words are a valid grpc-message");
    trailers
}

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
use tonic::Code;

use super::{Elapsed, elapsed, expired, origin::OriginClaim};
use crate::{
    grpc_status,
    protocol::Protocol,
    rejection::{Rejection, RejectionExtension, reasons},
    streams::RequestEnd,
    time_limit::{LimitOrigin, NoEvidence, TimeLimit},
};

/// Timer of the whole response; moves from the future into the body.
#[derive(Debug)]
pub(super) struct ResponseTimer {
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
    /// Set if the expiry is no evidence about the service.
    no_evidence: Option<NoEvidence>,
    /// Claim of the caller that its operator chose the timeout.
    claim: Option<OriginClaim>,
    /// End of a streamed request, before which the limit does not apply.
    request_end: Option<RequestEnd>,
    /// End of the whole call while the request is a stream.
    until_request_end: Option<Instant>,
    /// Whether the service was polled: work that has not begun is not begun after the time.
    started: bool,
    protocol: Protocol,
    role: Role,
    /// Time limit after the response head.
    body_timeout: BodyTimeout,
    /// `None` if the expiry is counted elsewhere.
    timeouts: Option<TimeoutCounters>,
}

/// Counters of expired timeouts, by who chose the time.
#[derive(Debug, Clone)]
pub(super) struct TimeoutCounters {
    operator: metrics::Counter,
    caller: metrics::Counter,
}

impl TimeoutCounters {
    /// Registers the counters of `target`; `kind` names the time of the operator.
    pub(super) fn new(target: &'static str, kind: &'static str) -> Self {
        let counter = |kind: &'static str| crate::counter!("palisade.request.timeouts", "target" => target, "kind" => kind);
        Self { operator: counter(kind), caller: counter("caller") }
    }
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

/// The margins of the hops behind a server take less than this part of its time.
const MARGINS: u32 = 20;

/// Which side enforces the timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Our own response: a timeout is logged.
    Server,
    /// The response of a called service.
    Client,
}

impl ResponseTimer {
    /// Starts a timer that expires at the end of `limit` and counts that in `timeouts`.
    pub(super) fn new(now: Instant, limit: TimeLimit, (side, protocol): (Role, Protocol), timeouts: Option<TimeoutCounters>) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep_until(limit.at())),
            limit: limit.remaining(now),
            no_evidence: NoEvidence::new(limit, now),
            claim: None,
            request_end: None,
            until_request_end: None,
            started: false,
            protocol,
            role: side,
            body_timeout: BodyTimeout::Remaining,
            timeouts,
        }
    }

    /// Turns it into the timer of a stream: the limit applies to the head, `end` to the rest, if
    /// there is one.
    pub(super) fn for_stream(self, end: Option<Instant>) -> Self {
        Self { body_timeout: end.map_or(BodyTimeout::Unlimited, BodyTimeout::Until), ..self }
    }

    /// Starts the limit at the end of the request; until then only `end` applies, if there is one.
    pub(super) fn starting_at_request_end(mut self, request_end: RequestEnd, end: Option<Instant>) -> Self {
        self.until_request_end = end;
        Self { request_end: Some(request_end), ..self }
    }

    /// Adds the claim of the caller that its operator chose the timeout.
    pub(super) fn with_claim(self, claim: OriginClaim) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// Returns the mark of responses whose timeout is no evidence about the service.
    fn no_evidence(&self) -> Option<NoEvidence> {
        self.no_evidence.filter(|_| !self.claim.as_ref().is_some_and(OriginClaim::is_confirmed))
    }

    /// Marks a timeout that is no evidence about the service.
    fn mark(&self, rejection: Rejection) -> Rejection {
        let timed_out = *rejection.reason() == reasons::DEADLINE_EXCEEDED;
        match self.no_evidence().filter(|_| timed_out).and_then(|mark| mark.applies(Instant::now())) {
            Some(chosen_by) => rejection.without_evidence(chosen_by),
            None => rejection,
        }
    }

    /// Whether the time is over before the work has begun.
    fn has_expired_unstarted(&mut self) -> bool {
        let unstarted = !std::mem::replace(&mut self.started, true);
        unstarted && self.request_end.is_none() && self.sleep.deadline() <= Instant::now()
    }

    /// Returns the timer of the body, after the response head.
    fn into_body_timer(mut self) -> Option<Self> {
        match self.body_timeout {
            BodyTimeout::Remaining => Some(self),
            BodyTimeout::Unlimited => None,
            BodyTimeout::Until(end) => {
                // The end of a stream is the choice of its reader, and no failure.
                self.timeouts = None;
                self.limit += end.saturating_duration_since(Instant::now());
                self.sleep.as_mut().reset(end);
                Some(self)
            }
        }
    }

    /// Waits for the timeout and counts it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(request_end) = &self.request_end {
            if request_end.poll_ended(cx).is_pending() {
                let Some(end) = self.until_request_end else { return Poll::Pending };
                self.sleep.as_mut().reset(end);
            } else {
                self.request_end = None;
                let limit = Instant::now() + self.limit;
                self.sleep.as_mut().reset(self.until_request_end.map_or(limit, |end| limit.min(end)));
            }
        }
        ready!(self.sleep.as_mut().poll(cx));
        self.count(false);
        Poll::Ready(())
    }

    fn count(&self, by_caller: bool) {
        let Some(TimeoutCounters { operator, caller }) = &self.timeouts else { return };
        // A service that sent the timeout counts it.
        if self.claim.as_ref().is_some_and(OriginClaim::is_internal) {
            return;
        }
        let chosen_by = self.no_evidence().and_then(|mark| mark.applies(Instant::now()));
        if by_caller || chosen_by == Some(LimitOrigin::Caller) { caller } else { operator }.increment(1);
    }

    /// Counts a timeout that was noticed elsewhere first: by the handler, by a call under the same
    /// limit, less a margin, or by one that was not worth a start; or the called service.
    fn count_noticed<B>(&self, result: &Result<Response<B>, Rejection>) {
        let rejected = |rejection: &Rejection| (*rejection.reason() == reasons::DEADLINE_EXCEEDED, rejection.is_due_to_caller());
        let (timed_out, by_caller) = match result {
            Err(rejection) => rejected(rejection),
            Ok(response) => match response.extensions().get::<RejectionExtension>() {
                Some(RejectionExtension(rejection)) => rejected(rejection),
                None => (grpc_status::from_headers(response.headers()) == Some(Code::DeadlineExceeded), false),
            },
        };
        let left = self.sleep.deadline().saturating_duration_since(Instant::now());
        if timed_out && (by_caller || left <= self.limit / MARGINS) {
            self.count(by_caller);
        }
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
                let Some(running) = timer else { unreachable!("future polled after completion") };
                if running.has_expired_unstarted() {
                    running.count(false);
                    return Poll::Ready(Err(running.mark(expired())));
                }
                // A response that is ready counts, however late this poll is.
                if let Poll::Ready(result) = inner.poll(cx) {
                    let mark = running.no_evidence();
                    let result = result.map_err(|error| running.mark(error.into()));
                    running.count_noticed(&result);
                    let timer = timer.take().and_then(ResponseTimer::into_body_timer);
                    return Poll::Ready(result.map(|mut response| {
                        if let Some(mark) = mark {
                            response.extensions_mut().insert(mark);
                        }
                        response.map(|body| TimeoutBody { body, timer, cut: false })
                    }));
                }
                ready!(running.poll(cx));
                Poll::Ready(Err(running.mark(elapsed(running.limit))))
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

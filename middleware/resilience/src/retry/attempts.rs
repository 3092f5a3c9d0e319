//! The attempts of one call as a hand-written future: every call allocates it, and an `async` loop
//! would be several times as large.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, request};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::{
    PeekedBody, Policy,
    budget::InFlight,
    call::Call,
    metrics::RetryDenied,
    outcome::{self, Answer, Outcome},
    replay::{self, Buffered},
};
use crate::{
    protocol::Protocol,
    rejection::Rejection,
    streams::{IsStreaming, UndeclaredResponse},
};

const POLLED_AFTER_COMPLETION: &str = "future polled after completion";

pin_project! {
    /// The future of [`Retry`](super::Retry).
    pub struct Attempts<S: Service<Request<Body>>, R: HttpBody> {
        service: S,
        call: Call,
        // Whether to read the response ahead, because the status may be at its end.
        peek_body: bool,
        kept: Option<Box<ReplayableRequest>>,
        // Result of the previous attempt.
        before: Option<Box<Answer<R>>>,
        #[pin]
        step: Step<S::Future, R>,
        in_flight: InFlight,
    }
}

/// A request that can be sent again.
pub(super) struct ReplayableRequest {
    head: request::Parts,
    message: Bytes,
}

pin_project! {
    #[project = StepProjection]
    enum Step<F, R: HttpBody> {
        // Waiting for the response head,
        Attempt { #[pin] answer: F },
        // for the end of the response,
        Peek { answer: Option<Answer<R>> },
        // or for the backoff. Boxed, because it is rare and must not enlarge the future.
        Backoff { sleep: Pin<Box<Sleep>>, answer: Option<Answer<R>> },
    }
}

impl<S, R> Attempts<S, R>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Rejection>,
    R: HttpBody + Unpin,
{
    /// Makes the first attempt with `service`, which must be ready.
    pub(super) fn new(policy: Arc<Policy>, mut service: S, request: Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        let (body, buffered) = replay::buffer(body);
        let message = match buffered {
            Buffered::Whole(message) => Some(message),
            Buffered::TooLong => None,
            Buffered::Stream(end) => {
                // The inner layers do not count the time that the sender takes.
                parts.extensions.insert(end);
                None
            }
        };
        let in_flight = policy.budget.start_call();
        let mut call = Call::new(policy, &parts, message.is_some());
        // The first frame of a stream may be late, and its head says whether the call was rejected.
        // An HTTP head always does.
        let may_stream = parts.extensions.get::<IsStreaming>().is_some() || parts.extensions.get::<UndeclaredResponse>().is_some();
        let whole = call.protocol() == Protocol::Grpc && !may_stream;
        // The copy is kept for later attempts: the original has spare capacity for the headers
        // added below.
        let kept = message.map(|message| Box::new(ReplayableRequest { head: parts.clone(), message }));
        let answer = service.call(call.request(parts, body));
        Self { service, call, peek_body: whole, kept, before: None, step: Step::Attempt { answer }, in_flight }
    }
}

impl<S, R> Future for Attempts<S, R>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Rejection>,
    R: HttpBody + Unpin,
{
    type Output = Answer<R>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<R>> {
        let mut this = self.project();
        loop {
            let mut answer = match this.step.as_mut().project() {
                StepProjection::Attempt { answer } => ready!(answer.poll(cx)).map(|response| response.map(PeekedBody::new)),
                StepProjection::Peek { answer } => answer.take().expect(POLLED_AFTER_COMPLETION),
                StepProjection::Backoff { sleep, answer } => {
                    ready!(sleep.as_mut().poll(cx));
                    let answer = answer.take().expect(POLLED_AFTER_COMPLETION);
                    let Some(ReplayableRequest { head, message }) = this.kept.as_deref() else {
                        unreachable!("backoff without a replayable request")
                    };
                    if !matches!(this.service.ready().now_or_never(), Some(Ok(_))) {
                        // Waiting for capacity would queue retries.
                        this.call.record_denied(RetryDenied::NotReady);
                        return Poll::Ready(this.call.finish(head.uri.path(), answer));
                    }
                    *this.before = Some(Box::new(answer));
                    let request = this.call.request(head.clone(), replay::replay(message));
                    let answer = this.service.call(request);
                    this.step.set(Step::Attempt { answer });
                    continue;
                }
            };
            if *this.peek_body && this.call.may_retry() && outcome::poll_read_ahead(&mut answer, cx).is_pending() {
                this.step.set(Step::Peek { answer: Some(answer) });
                return Poll::Pending;
            }
            let outcome = outcome::classify(this.call.protocol(), &mut answer, this.call.target());
            let path = this.kept.as_ref().map_or("", |kept| kept.head.uri.path());
            let pause = this.call.decide(path, outcome, Instant::now).filter(|_| this.kept.is_some());
            let Some(pause) = pause else {
                // The failure that caused the retry says more than the local rejection of the
                // retry.
                let before = this.before.take().filter(|_| outcome == Outcome::Rejected);
                return Poll::Ready(this.call.finish(path, before.map_or(answer, |before| *before)));
            };
            #[cfg(feature = "opentelemetry")]
            super::span_event::record(this.call, outcome, &answer, pause);
            // The rest of the body would keep its stream and its measurement open.
            let answer = answer.map(|response| response.map(PeekedBody::peeked_only));
            this.step.set(Step::Backoff { sleep: Box::pin(tokio::time::sleep(pause)), answer: Some(answer) });
        }
    }
}

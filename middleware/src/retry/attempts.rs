//! The attempts of one call, one after the other. Written out, because every call allocates it: as an `async` loop it is several times as large.

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
    replay,
};
use crate::{rejection::Rejection, respond::Protocol, streams::IsStreaming};

const POLLED_AFTER_COMPLETION: &str = "a future is not polled after it was ready";

pin_project! {
    /// The future of [`Retry`](super::Retry).
    pub struct Attempts<S: Service<Request<Body>>, R: HttpBody> {
        service: S,
        call: Call,
        // Whether the status may be at the end of an answer.
        peek_body: bool,
        kept: Option<Box<ReplayableRequest>>,
        // What came of the attempt before.
        before: Option<Box<Answer<R>>>,
        #[pin]
        step: Step<S::Future, R>,
        in_flight: InFlight,
    }
}

/// What can be sent again.
pub(super) struct ReplayableRequest {
    head: request::Parts,
    message: Bytes,
}

pin_project! {
    #[project = StepProjection]
    enum Step<F, R: HttpBody> {
        // The answer to an attempt is waited for, ...
        Attempt { #[pin] answer: F },
        // ... its first frame, ...
        Peek { answer: Option<Answer<R>> },
        // ... or the time for another. Seldom, so that it takes no room of its own.
        Backoff { sleep: Pin<Box<Sleep>>, answer: Option<Answer<R>> },
    }
}

impl<S, R> Attempts<S, R>
where
    S: Service<Request<Body>, Response = Response<R>, Error = Rejection>,
    R: HttpBody + Unpin,
{
    /// Makes the first attempt, by `service`, which is ready.
    pub(super) fn new(policy: Arc<Policy>, mut service: S, request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let (body, message) = replay::buffer(body);
        let in_flight = policy.budget.start_call();
        let mut call = Call::new(policy, &parts, message.is_some());
        // The first piece of a stream may be long in coming; its head says whether it was refused. Over HTTP every head does.
        let whole = call.protocol() == Protocol::Grpc && parts.extensions.get::<IsStreaming>().is_none();
        // The copy is for later: what is sent first has room for what the layers below write.
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
                    let Some(ReplayableRequest { head, message }) = this.kept.as_deref() else { unreachable!("only what was kept is waited for") };
                    if !matches!(this.service.ready().now_or_never(), Some(Ok(_))) {
                        // To wait for a place would be to queue retries.
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
            if *this.peek_body && this.call.may_retry() && outcome::poll_first_frame(&mut answer, cx).is_pending() {
                this.step.set(Step::Peek { answer: Some(answer) });
                return Poll::Pending;
            }
            let outcome = outcome::classify(this.call.protocol(), &mut answer);
            let path = this.kept.as_ref().map_or("", |kept| kept.head.uri.path());
            let pause = this.call.decide(path, outcome, Instant::now).filter(|_| this.kept.is_some());
            let Some(pause) = pause else {
                // That we refused to go on says less than what made us try.
                let before = this.before.take().filter(|_| outcome == Outcome::Rejected);
                return Poll::Ready(this.call.finish(path, before.map_or(answer, |before| *before)));
            };
            this.call.record_retry_event(outcome, &answer, pause);
            // The rest of its body would keep its stream, and its measurement, open.
            let answer = answer.map(|response| response.map(PeekedBody::first_frame_only));
            this.step.set(Step::Backoff { sleep: Box::pin(tokio::time::sleep(pause)), answer: Some(answer) });
        }
    }
}

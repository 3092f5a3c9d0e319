//! One call on its way through its attempts: decides after each, and takes the time from its caller, if it matters.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, request};
use http_body::Body as HttpBody;
use opentelemetry::KeyValue;
use tokio::time::Instant;
use tonic::body::Body;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{
    Attempt, Policy,
    back_off::BackOff,
    budget::{Budget, Exhausted, InFlight},
    metrics::Denied,
    outcome::{self, Answer, Outcome},
};
use crate::{
    context, deadline::CallDeadline, jitter, rejection::Retry, request_context::PREVIOUS_ATTEMPTS_HEADER, respond::Protocol, trace,
};

/// The state of a call between its attempts.
#[derive(Debug)]
pub(super) struct Call {
    policy: Arc<Policy>,
    deadline: Option<Instant>,
    /// Why there can only be one attempt, if so.
    barrier: Option<Denied>,
    /// The attempts made so far. A transparent retry repeats a number.
    attempt: u32,
    transparent: Transparent,
    back_off: BackOff,
    in_flight: Option<InFlight>,
    /// The last attempt failed on the target's side.
    failed: bool,
    /// Our caller need not try what we have tried.
    exhausted: bool,
}

/// The one retry that a call has for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transparent {
    Free,
    Next,
    Made,
}

impl Call {
    pub(super) fn new(policy: Arc<Policy>, request: &request::Parts, kept: bool) -> Self {
        let config = &policy.config;
        let back_off = BackOff::new(Duration::from_millis(config.base_ms), Duration::from_millis(config.max_ms), jitter::draw);
        let barrier = if !kept {
            Some(Denied::Committed)
        } else if context::look(|context| context.previous_attempts > 0) == Some(true) {
            Some(Denied::CallerRetries)
        } else if !policy.repeatable.allow(request) {
            Some(Denied::NotIdempotent)
        } else {
            None
        };
        Self {
            policy,
            deadline: request.extensions.get::<CallDeadline>().map(|deadline| deadline.0),
            barrier,
            attempt: 0,
            transparent: Transparent::Free,
            back_off,
            in_flight: None,
            failed: false,
            exhausted: false,
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.policy.repeatable.protocol()
    }

    /// The request of the next attempt, which counts from now on.
    pub(super) fn request(&mut self, mut parts: request::Parts, body: Body) -> Request<Body> {
        if self.transparent == Transparent::Next {
            self.transparent = Transparent::Made;
        } else {
            self.attempt += 1;
        }
        if self.attempt > 1 || self.transparent == Transparent::Made {
            parts.extensions.insert(Attempt(self.attempt));
        }
        if self.attempt > 1 && self.protocol() == Protocol::Grpc {
            parts.headers.insert(PREVIOUS_ATTEMPTS_HEADER, HeaderValue::from(self.attempt - 1));
        }
        Request::from_parts(parts, body)
    }

    /// Whether it is of use to look into an answer before it is handed on.
    pub(super) fn may_repeat(&self) -> bool {
        self.barrier.is_none() && self.attempt < self.policy.config.attempts()
    }

    /// How long to wait before the next attempt at `path`; `None` if the answer stands.
    pub(super) fn next(&mut self, path: &str, outcome: Outcome, now: fn() -> Instant) -> Option<Duration> {
        self.in_flight = None;
        let failed_before = self.failed;
        self.failed = matches!(outcome, Outcome::Unsent | Outcome::NotTried | Outcome::Lost | Outcome::Failed(_) | Outcome::Final);
        let next = match outcome {
            Outcome::Refused => {
                // What counts is what came of the attempt before it, if there was one: that one was in vain.
                self.failed = failed_before;
                self.exhausted = self.attempt > 1 || self.transparent == Transparent::Made;
                return None;
            }
            Outcome::Final => return None,
            Outcome::Answered => {
                self.policy.budget.refund();
                return None;
            }
            Outcome::Unsent if self.transparent == Transparent::Free && self.barrier != Some(Denied::Committed) => Ok(self.transparently()),
            // What the server has not seen had no effect.
            Outcome::Unsent | Outcome::NotTried => {
                self.again(Retry::Silent, self.barrier.filter(|barrier| *barrier != Denied::NotIdempotent), Budget::retry, now)
            }
            Outcome::Lost if self.attempt == 1 => self.again(Retry::Silent, self.barrier, Budget::after_loss, now),
            Outcome::Lost => self.again(Retry::Silent, self.barrier, Budget::retry, now),
            Outcome::Failed(advice) => self.again(advice, self.barrier, Budget::retry, now),
        };
        match next {
            Ok((pause, in_flight)) => {
                tracing::debug!(method = path, attempt = self.attempt, ?outcome, ?pause, "trying again");
                self.in_flight = Some(in_flight);
                Some(pause)
            }
            Err(denied) => {
                self.deny(denied);
                None
            }
        }
    }

    /// An event on the span of the call, for the attempt that failed: log lines are not copied into spans.
    pub(super) fn tell<R: HttpBody>(&self, outcome: Outcome, answer: &Answer<R>, pause: Duration) {
        if !trace::is_recorded() {
            return;
        }
        let protocol = self.protocol();
        let [attempt, told, waits] = match protocol {
            Protocol::Grpc => ["app.rpc.attempt", "app.rpc.outcome", "app.rpc.pause_ms"],
            Protocol::Http => ["app.http.attempt", "app.http.outcome", "app.http.pause_ms"],
        };
        let attributes = vec![
            KeyValue::new(attempt, i64::from(self.attempt)),
            KeyValue::new(told, outcome.name()),
            outcome::status(protocol, answer),
            KeyValue::new(waits, i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)),
        ];
        tracing::Span::current().add_event("retry", attributes);
    }

    /// At once, once, and not counted as an attempt (gRFC A6, "transparent retries").
    fn transparently(&mut self) -> (Duration, InFlight) {
        self.transparent = Transparent::Next;
        (Duration::ZERO, self.policy.budget.transparent())
    }

    fn again(
        &mut self,
        advice: Retry,
        barrier: Option<Denied>,
        room: fn(&Arc<Budget>) -> Result<InFlight, Exhausted>,
        now: fn() -> Instant,
    ) -> Result<(Duration, InFlight), Denied> {
        let Policy { config, budget, .. } = &*self.policy;
        budget.spend();
        if let Some(barrier) = barrier {
            return Err(barrier);
        }
        if self.attempt >= config.attempts() {
            return Err(Denied::Attempts);
        }
        let pause = self.back_off.next(advice).ok_or(Denied::Pushback)?;
        // Better the real error now than a timeout later.
        let in_time = |deadline: Instant| now() + pause + Duration::from_millis(config.min_attempt_ms) < deadline;
        if !self.deadline.is_none_or(in_time) {
            return Err(Denied::Deadline);
        }
        let in_flight = room(budget).map_err(Denied::from)?;
        Ok((pause, in_flight))
    }

    /// There is no further attempt.
    pub(super) fn deny(&mut self, why: Denied) {
        self.policy.metrics.denied(why);
        self.exhausted = self.attempt > 1 || matches!(why, Denied::Tokens | Denied::Concurrency);
    }

    /// The answer to the call.
    pub(super) fn finish<R: HttpBody>(&self, path: &str, answer: Answer<R>) -> Answer<R> {
        let protocol = self.protocol();
        match protocol {
            Protocol::Grpc => {
                self.policy.metrics.retried(path, self.attempt - 1, self.transparent == Transparent::Made);
                trace::record("app.rpc.attempts", i64::from(self.attempt));
            }
            Protocol::Http if self.attempt > 1 => trace::record("http.request.resend_count", i64::from(self.attempt - 1)),
            Protocol::Http => {}
        }
        let answer = if self.failed { outcome::blame(protocol, answer, self.policy.target) } else { answer };
        if self.exhausted { outcome::exhausted(protocol, answer) } else { answer }
    }
}

impl From<Exhausted> for Denied {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Tokens => Self::Tokens,
            Exhausted::InFlight => Self::Concurrency,
        }
    }
}

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
    metrics::RetryDenied,
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
    no_retry_reason: Option<RetryDenied>,
    /// The attempts made so far. A transparent retry repeats a number.
    attempt: u32,
    transparent: Transparent,
    back_off: BackOff,
    in_flight: Option<InFlight>,
    /// The last attempt failed on the target's side.
    target_failed: bool,
    /// Our caller need not try what we have tried.
    forbid_retry: bool,
}

/// The one retry that a call has for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transparent {
    Available,
    Scheduled,
    Used,
}

impl Call {
    pub(super) fn new(policy: Arc<Policy>, request: &request::Parts, kept: bool) -> Self {
        let config = &policy.config;
        let back_off = BackOff::new(Duration::from_millis(config.base_ms), Duration::from_millis(config.max_ms), jitter::random_unit);
        let barrier = if !kept {
            Some(RetryDenied::Committed)
        } else if context::with_current(|context| context.previous_attempts > 0) == Some(true) {
            Some(RetryDenied::CallerRetries)
        } else if !policy.idempotency.allows(request) {
            Some(RetryDenied::NotIdempotent)
        } else {
            None
        };
        Self {
            policy,
            deadline: request.extensions.get::<CallDeadline>().map(|deadline| deadline.0),
            no_retry_reason: barrier,
            attempt: 0,
            transparent: Transparent::Available,
            back_off,
            in_flight: None,
            target_failed: false,
            forbid_retry: false,
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.policy.idempotency.protocol()
    }

    /// The request of the next attempt, which counts from now on.
    pub(super) fn request(&mut self, mut parts: request::Parts, body: Body) -> Request<Body> {
        if self.transparent == Transparent::Scheduled {
            self.transparent = Transparent::Used;
        } else {
            self.attempt += 1;
        }
        if self.attempt > 1 || self.transparent == Transparent::Used {
            parts.extensions.insert(Attempt(self.attempt));
        }
        if self.attempt > 1 && self.protocol() == Protocol::Grpc {
            parts.headers.insert(PREVIOUS_ATTEMPTS_HEADER, HeaderValue::from(self.attempt - 1));
        }
        Request::from_parts(parts, body)
    }

    /// Whether it is of use to look into an answer before it is handed on.
    pub(super) fn may_retry(&self) -> bool {
        self.no_retry_reason.is_none() && self.attempt < self.policy.config.attempts()
    }

    /// How long to wait before the next attempt at `path`; `None` if the answer stands.
    pub(super) fn decide(&mut self, path: &str, outcome: Outcome, now: fn() -> Instant) -> Option<Duration> {
        self.in_flight = None;
        let failed_before = self.target_failed;
        self.target_failed = matches!(outcome, Outcome::NeverSent | Outcome::ConnectBackoff | Outcome::ConnectionLost | Outcome::Failed(_) | Outcome::NonRetryable);
        let next = match outcome {
            Outcome::Rejected => {
                // What counts is what came of the attempt before it, if there was one: that one was in vain.
                self.target_failed = failed_before;
                self.forbid_retry = self.attempt > 1 || self.transparent == Transparent::Used;
                return None;
            }
            Outcome::NonRetryable => return None,
            Outcome::Completed => {
                self.policy.budget.refund();
                return None;
            }
            Outcome::NeverSent if self.transparent == Transparent::Available && self.no_retry_reason != Some(RetryDenied::Committed) => Ok(self.start_transparent_retry()),
            // What the server has not seen had no effect.
            Outcome::NeverSent | Outcome::ConnectBackoff => {
                self.schedule_retry(Retry::Unspecified, self.no_retry_reason.filter(|barrier| *barrier != RetryDenied::NotIdempotent), Budget::try_retry, now)
            }
            Outcome::ConnectionLost if self.attempt == 1 => self.schedule_retry(Retry::Unspecified, self.no_retry_reason, Budget::retry_connection_loss, now),
            Outcome::ConnectionLost => self.schedule_retry(Retry::Unspecified, self.no_retry_reason, Budget::try_retry, now),
            Outcome::Failed(advice) => self.schedule_retry(advice, self.no_retry_reason, Budget::try_retry, now),
        };
        match next {
            Ok((pause, in_flight)) => {
                tracing::debug!(method = path, attempt = self.attempt, ?outcome, ?pause, "trying again");
                self.in_flight = Some(in_flight);
                Some(pause)
            }
            Err(denied) => {
                self.record_denied(denied);
                None
            }
        }
    }

    /// An event on the span of the call, for the attempt that failed: log lines are not copied into spans.
    pub(super) fn record_retry_event<R: HttpBody>(&self, outcome: Outcome, answer: &Answer<R>, pause: Duration) {
        if !trace::is_recorded() {
            return;
        }
        let protocol = self.protocol();
        let [attempt, outcome_key, waits] = match protocol {
            Protocol::Grpc => ["app.rpc.attempt", "app.rpc.outcome", "app.rpc.pause_ms"],
            Protocol::Http => ["app.http.attempt", "app.http.outcome", "app.http.pause_ms"],
        };
        let attributes = vec![
            KeyValue::new(attempt, i64::from(self.attempt)),
            KeyValue::new(outcome_key, outcome.name()),
            outcome::status_attribute(protocol, answer),
            KeyValue::new(waits, i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)),
        ];
        tracing::Span::current().add_event("retry", attributes);
    }

    /// At once, once, and not counted as an attempt (gRFC A6, "transparent retries").
    fn start_transparent_retry(&mut self) -> (Duration, InFlight) {
        self.transparent = Transparent::Scheduled;
        (Duration::ZERO, self.policy.budget.transparent_retry())
    }

    fn schedule_retry(
        &mut self,
        advice: Retry,
        barrier: Option<RetryDenied>,
        acquire: fn(&Arc<Budget>) -> Result<InFlight, Exhausted>,
        now: fn() -> Instant,
    ) -> Result<(Duration, InFlight), RetryDenied> {
        let Policy { config, budget, .. } = &*self.policy;
        budget.spend();
        if let Some(barrier) = barrier {
            return Err(barrier);
        }
        if self.attempt >= config.attempts() {
            return Err(RetryDenied::Attempts);
        }
        let pause = self.back_off.next(advice).ok_or(RetryDenied::Pushback)?;
        // Better the real error now than a timeout later.
        let in_time = |deadline: Instant| now() + pause + Duration::from_millis(config.min_attempt_ms) < deadline;
        if !self.deadline.is_none_or(in_time) {
            return Err(RetryDenied::Deadline);
        }
        let in_flight = acquire(budget).map_err(RetryDenied::from)?;
        Ok((pause, in_flight))
    }

    /// There is no further attempt.
    pub(super) fn record_denied(&mut self, why: RetryDenied) {
        self.policy.metrics.record_denied(why);
        self.forbid_retry = self.attempt > 1 || matches!(why, RetryDenied::Tokens | RetryDenied::Concurrency);
    }

    /// The answer to the call.
    pub(super) fn finish<R: HttpBody>(&self, path: &str, answer: Answer<R>) -> Answer<R> {
        let protocol = self.protocol();
        match protocol {
            Protocol::Grpc => {
                self.policy.metrics.record_retries(path, self.attempt - 1, self.transparent == Transparent::Used);
                trace::record("app.rpc.attempts", i64::from(self.attempt));
            }
            Protocol::Http if self.attempt > 1 => trace::record("http.request.resend_count", i64::from(self.attempt - 1)),
            Protocol::Http => {}
        }
        let answer = if self.target_failed { outcome::set_failure_origin(protocol, answer, self.policy.target) } else { answer };
        if self.forbid_retry { outcome::forbid_retry(protocol, answer) } else { answer }
    }
}

impl From<Exhausted> for RetryDenied {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Tokens => Self::Tokens,
            Exhausted::InFlight => Self::Concurrency,
        }
    }
}

//! Retry decisions of one call after each attempt. Pure except for the time, which the caller
//! passes when it is needed.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, request};
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tonic::body::Body;

use super::{
    Attempt, Policy,
    back_off::BackOff,
    budget::{Budget, Exhausted, InFlight},
    metrics::RetryDenied,
    outcome::{self, Answer, Outcome},
};
use crate::{
    context, deadline::CallDeadline, jitter, protocol::Protocol, rejection::Retry, request_context::PREVIOUS_ATTEMPTS_HEADER,
    time_limit::TimeLimit, trace,
};

/// State of a call between its attempts.
#[derive(Debug)]
pub(super) struct Call {
    policy: Arc<Policy>,
    deadline: Option<TimeLimit>,
    /// Why the call cannot be retried at all, if so.
    no_retry_reason: Option<RetryDenied>,
    /// Attempts made so far. A transparent retry does not count.
    pub(super) attempt: u32,
    transparent: Transparent,
    back_off: BackOff,
    in_flight: Option<InFlight>,
    /// Whether the last attempt failed on the target's side.
    target_failed: bool,
    /// Whether the response forbids our caller to retry.
    forbid_retry: bool,
    /// Counts the attempts for the span of the call.
    #[cfg(feature = "opentelemetry")]
    sent: Option<trace::SentAttempts>,
}

/// State of the one transparent retry of a call.
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
        } else if context::with_current(|context| context.previous_attempts > 0) == Some(true) && !crate::planted!("retries multiply") {
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
            #[cfg(feature = "opentelemetry")]
            sent: request.extensions.get().cloned(),
        }
    }

    pub(super) fn target(&self) -> &'static str {
        self.policy.target
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.policy.idempotency.protocol()
    }

    /// Builds the request of the next attempt and counts the attempt.
    pub(super) fn request(&mut self, mut parts: request::Parts, body: Body) -> Request<Body> {
        #[cfg(feature = "opentelemetry")]
        if let Some(sent) = &self.sent {
            sent.add();
        }
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

    /// Returns whether a retry is possible, so that reading the first frame is worth it.
    pub(super) fn may_retry(&self) -> bool {
        self.no_retry_reason.is_none() && self.attempt < self.policy.config.attempts()
    }

    /// Returns the backoff before the next attempt at `path`, or `None` if the response is final.
    pub(super) fn decide(&mut self, path: &str, outcome: Outcome, now: fn() -> Instant) -> Option<Duration> {
        self.in_flight = None;
        #[cfg(feature = "opentelemetry")]
        if let (Some(sent), Outcome::Rejected | Outcome::NeverSent | Outcome::ConnectBackoff) = (&self.sent, outcome) {
            sent.take_back();
        }
        let failed_before = self.target_failed;
        self.target_failed = matches!(
            outcome,
            Outcome::NeverSent
                | Outcome::ConnectBackoff
                | Outcome::ConnectionLost
                | Outcome::Failed(_)
                | Outcome::Excused(_)
                | Outcome::CallerTimeout
                | Outcome::NonRetryable
        );
        let next = match outcome {
            Outcome::Rejected => {
                // The result of the previous attempt counts, if there was one: it was in vain.
                self.target_failed = failed_before;
                self.forbid_retry = self.attempt > 1 || self.transparent == Transparent::Used;
                return None;
            }
            Outcome::NonRetryable => return None,
            // Costs no token: the time that a caller chose must not stop the retries of others.
            Outcome::CallerTimeout => {
                self.record_denied(RetryDenied::Deadline);
                return None;
            }
            Outcome::Completed => {
                self.policy.budget.refund();
                return None;
            }
            Outcome::NeverSent if self.transparent == Transparent::Available && self.no_retry_reason != Some(RetryDenied::Committed) => {
                Ok(self.start_transparent_retry())
            }
            // A request that the server has not received had no effect.
            Outcome::NeverSent | Outcome::ConnectBackoff => self.schedule_retry(
                Retry::Unspecified,
                self.no_retry_reason.filter(|barrier| *barrier != RetryDenied::NotIdempotent),
                Budget::try_retry,
                now,
            ),
            Outcome::ConnectionLost if self.attempt == 1 => {
                self.schedule_retry(Retry::Unspecified, self.no_retry_reason, Budget::retry_connection_loss, now)
            }
            Outcome::ConnectionLost => self.schedule_retry(Retry::Unspecified, self.no_retry_reason, Budget::try_retry, now),
            Outcome::Failed(advice) => self.schedule_retry(advice, self.no_retry_reason, Budget::try_retry, now),
            // Costs no token either: one caller over its quota must not stop the retries of others.
            Outcome::Excused(advice) => self.plan_retry(advice, self.no_retry_reason, Budget::try_retry, now),
        };
        match next {
            Ok((pause, in_flight)) => {
                tracing::debug!(method = path, attempt = self.attempt, ?outcome, ?pause, "retrying");
                self.in_flight = Some(in_flight);
                Some(pause)
            }
            Err(denied) => {
                self.record_denied(denied);
                None
            }
        }
    }

    /// Starts a transparent retry (gRFC A6): immediate, at most once, and not counted as an
    /// attempt.
    fn start_transparent_retry(&mut self) -> (Duration, InFlight) {
        self.transparent = Transparent::Scheduled;
        (Duration::ZERO, self.policy.budget.transparent_retry())
    }

    /// Spends a token for the failure, then plans the retry.
    fn schedule_retry(
        &mut self,
        advice: Retry,
        barrier: Option<RetryDenied>,
        acquire: fn(&Arc<Budget>) -> Result<InFlight, Exhausted>,
        now: fn() -> Instant,
    ) -> Result<(Duration, InFlight), RetryDenied> {
        self.policy.budget.spend();
        self.plan_retry(advice, barrier, acquire, now)
    }

    fn plan_retry(
        &mut self,
        advice: Retry,
        barrier: Option<RetryDenied>,
        acquire: fn(&Arc<Budget>) -> Result<InFlight, Exhausted>,
        now: fn() -> Instant,
    ) -> Result<(Duration, InFlight), RetryDenied> {
        let Policy { config, budget, .. } = &*self.policy;
        if let Some(barrier) = barrier {
            return Err(barrier);
        }
        if self.attempt >= config.attempts() {
            return Err(RetryDenied::Attempts);
        }
        let advice = if crate::planted!("pushback ignored") { Retry::Unspecified } else { advice };
        let pause = self.back_off.next(advice).ok_or(RetryDenied::Pushback)?;
        // Returning the real error now is better than a timeout later.
        let in_time = |limit: TimeLimit| now() + pause + Duration::from_millis(config.min_attempt_ms) < limit.at();
        if !self.deadline.is_none_or(in_time) {
            return Err(RetryDenied::Deadline);
        }
        let in_flight = acquire(budget).map_err(RetryDenied::from)?;
        Ok((pause, in_flight))
    }

    /// Records that the retry is denied.
    pub(super) fn record_denied(&mut self, why: RetryDenied) {
        self.policy.metrics.record_denied(why);
        self.forbid_retry = self.attempt > 1 || matches!(why, RetryDenied::Tokens | RetryDenied::Concurrency);
    }

    /// Completes the response of the call: failure origin, pushback and metrics.
    pub(super) fn finish<R: HttpBody>(&self, path: &str, answer: Answer<R>) -> Answer<R> {
        let protocol = self.protocol();
        match protocol {
            Protocol::Grpc => self.policy.metrics.record_retries(path, self.attempt - 1, self.transparent == Transparent::Used),
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

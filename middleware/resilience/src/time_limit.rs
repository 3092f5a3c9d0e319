//! Time limit of a request, and who chose it.
//!
//! Only a limit that the operator configured says something about the service behind it: a caller
//! can choose a limit that no healthy service meets. The estimators that all callers share
//! (circuit breakers, adaptive limit, load estimates, retry tokens, objectives) therefore ask
//! [`TimeLimit::is_evidence`] before they count an expiry.

use std::time::Duration;

use tokio::time::Instant;

/// Who chose a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOrigin {
    /// The operator, by a setting.
    Operator,
    /// The caller, by a header, or by the pace of its own request.
    Caller,
}

/// Time by which a request must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit {
    at: Instant,
    origin: LimitOrigin,
    /// Time that the operator's settings allow, whatever the caller chose.
    allowance: Duration,
    inherited: bool,
}

impl TimeLimit {
    /// Creates the limit that the operator configured.
    pub fn operator(now: Instant, allowance: Duration) -> Self {
        Self { at: after(now, allowance), origin: LimitOrigin::Operator, allowance, inherited: false }
    }

    /// Creates a limit that the caller chose, where the operator would allow `allowance`.
    pub fn caller(now: Instant, requested: Duration, allowance: Duration) -> Self {
        Self { at: after(now, requested), origin: LimitOrigin::Caller, allowance, inherited: false }
    }

    /// Returns the end of the time.
    pub fn at(self) -> Instant {
        self.at
    }

    /// Returns who chose the limit.
    pub fn origin(self) -> LimitOrigin {
        self.origin
    }

    /// Returns the remaining time, zero after the end.
    pub fn remaining(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Returns whether the time is over.
    pub fn has_passed(self, now: Instant) -> bool {
        self.at <= now
    }

    /// Combines two limits: the earlier end applies.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        let first = if other.at < self.at { other } else { self };
        Self { allowance: self.allowance.min(other.allowance), ..first }
    }

    /// Moves the end to an earlier time, without a change of who chose it.
    #[must_use]
    pub fn shortened_by(self, margin: Duration, now: Instant) -> Self {
        Self { at: now + self.remaining(now).saturating_sub(margin), ..self }
    }

    /// Marks the limit of the request that this process serves.
    #[must_use]
    pub(crate) fn of_request(self) -> Self {
        Self { inherited: true, ..self }
    }

    /// Keeps the time for work that goes on after the response to its request, whose server no
    /// longer counts the expiry.
    #[must_use]
    pub(crate) fn outliving_request(self) -> Self {
        Self { inherited: false, ..self }
    }

    /// Returns whether it is the limit of a request that this process serves. The server counts its
    /// expiry, so the calls on behalf of that request do not.
    pub(crate) fn is_inherited(self) -> bool {
        self.inherited
    }

    /// Attributes the limit to the operator, because a service of ours vouches for it.
    #[must_use]
    pub fn confirmed(self, now: Instant) -> Self {
        Self { origin: LimitOrigin::Operator, allowance: self.remaining(now).max(Duration::from_nanos(1)), ..self }
    }

    /// Returns whether the expiry of work that began at `started` is evidence about the service:
    /// the operator chose the limit, and the work had at least half of the allowance. The rest was
    /// spent before, which depends on the pace of the caller.
    pub fn is_evidence(self, started: Instant) -> bool {
        self.origin == LimitOrigin::Operator && self.remaining(started) >= self.allowance / 2
    }
}

/// Returns `now + time`, or a time in the far future if a caller chose more than a clock holds.
fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now + FAR_FUTURE)
}

/// Longer than any request.
const FAR_FUTURE: Duration = Duration::from_hours(24 * 365);

/// Response extension: a timeout of this response, from some time on, is no evidence about the
/// service.
#[derive(Debug, Clone, Copy)]
pub struct NoEvidence {
    since: Instant,
    chosen_by: LimitOrigin,
}

impl NoEvidence {
    /// Marks the responses to a request under `limit` that began at `started`, unless its expiry is
    /// evidence. A service may end somewhat early to answer in time, so the last tenth counts.
    pub(crate) fn new(limit: TimeLimit, started: Instant) -> Option<Self> {
        let granted = limit.remaining(started);
        (!limit.is_evidence(started)).then(|| Self { since: started + granted - granted / 10, chosen_by: limit.origin })
    }

    /// Marks a response that has already timed out.
    pub(crate) fn expired(chosen_by: LimitOrigin) -> Self {
        Self { since: Instant::now(), chosen_by }
    }

    /// Returns who chose the time, if a timeout at `now` is no evidence.
    pub(crate) fn applies(self, now: Instant) -> Option<LimitOrigin> {
        (now >= self.since).then_some(self.chosen_by)
    }
}

/// `error.type` of a timeout that the caller chose.
pub(crate) const CALLER_DEADLINE: &str = "caller_deadline";

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn only_operator_limits_are_evidence() {
        let now = Instant::now();
        let operator = TimeLimit::operator(now, 5 * SECOND);
        for (name, limit, evidence) in [
            ("operator", operator, true),
            ("caller", TimeLimit::caller(now, SECOND, 9 * SECOND), false),
            ("caller asks for more", operator.earlier(TimeLimit::caller(now, 8 * SECOND, 9 * SECOND)), true),
            ("caller asks for less", operator.earlier(TimeLimit::caller(now, 4 * SECOND, 9 * SECOND)), false),
            ("caller first", TimeLimit::caller(now, 8 * SECOND, 9 * SECOND).earlier(operator), true),
            ("shorter operator", operator.earlier(TimeLimit::operator(now, SECOND)), true),
            ("confirmed by a service", TimeLimit::caller(now, SECOND, 9 * SECOND).confirmed(now), true),
        ] {
            assert_eq!(limit.is_evidence(now), evidence, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_spent_before_the_work_is_no_evidence() {
        let now = Instant::now();
        let limit = TimeLimit::operator(now, 10 * SECOND);
        assert!(limit.is_evidence(now + 5 * SECOND));
        assert!(!limit.is_evidence(now + 6 * SECOND));
        let attempt = TimeLimit::operator(now + 6 * SECOND, 5 * SECOND).earlier(limit);
        assert!(attempt.is_evidence(now + 6 * SECOND), "4 of 5 seconds are left for this attempt");
        let last = TimeLimit::operator(now + 9 * SECOND, 5 * SECOND).earlier(limit);
        assert!(!last.is_evidence(now + 9 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn early_timeout_is_evidence() {
        let now = Instant::now();
        let mark = NoEvidence::new(TimeLimit::caller(now, SECOND, 9 * SECOND), now).unwrap();
        assert_eq!(mark.applies(now + SECOND / 2), None);
        assert_eq!(mark.applies(now + SECOND), Some(LimitOrigin::Caller));
        assert!(NoEvidence::new(TimeLimit::operator(now, SECOND), now).is_none());
    }
}

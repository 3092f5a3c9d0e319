//! Types of a breaker: states, call outcomes, observations and transitions.

use std::time::Duration;

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Admits all calls and records their outcome.
    Closed,
    /// Rejects all calls until the open time is over.
    Open,
    /// Admits a few probes.
    HalfOpen,
    /// Rejects all calls until an operator changes the mode.
    ForcedOpen,
    /// Admits all calls and records nothing.
    Disabled,
    /// Admits all calls and only reports when it would have opened.
    MetricsOnly,
}

impl State {
    /// Returns whether all calls are admitted.
    pub fn admits_all(self) -> bool {
        matches!(self, Self::Closed | Self::Disabled | Self::MetricsOnly)
    }

    /// Returns the name for labels and the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }
}

/// Outcome of a call, as evidence about the target's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The target works.
    Success,
    /// The target failed.
    Failure,
    /// Throttled (429, `RESOURCE_EXHAUSTED`, or load shedding of the target): no failure, but no
    /// successful probe either.
    Throttled,
    /// No evidence.
    Neutral,
    /// No evidence: the caller cancelled.
    Cancelled,
}

/// A finished call.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// Outcome of the call.
    pub outcome: CallOutcome,
    /// Whether the response head was late.
    pub slow: bool,
    /// Retry delay that the target asked for.
    pub retry_after: Option<Duration>,
}

/// Cause of a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The failure rate was reached.
    FailureRate,
    /// The slow-call rate was reached.
    SlowRate,
    /// The number of consecutive failures was reached.
    ConsecutiveFailures,
    /// Too many probes failed or were slow.
    ProbeFailed,
    /// Enough probes succeeded.
    ProbeSucceeded,
    /// Probes timed out.
    HalfOpenTimeout,
    /// The open time was over.
    OpenTimeout,
    /// Operator action.
    Manual,
}

impl Cause {
    /// Returns the name for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::ConsecutiveFailures => "consecutive",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeSucceeded => "probe_succeeded",
            Self::HalfOpenTimeout => "half_open_timeout",
            Self::OpenTimeout => "wait_over",
            Self::Manual => "manual",
        }
    }
}

/// A state change, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Cause.
    pub cause: Cause,
}

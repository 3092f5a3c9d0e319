//! The words of a breaker: what it is told about a call, and what it says of itself.

use std::time::Duration;

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Lets all through and watches.
    Closed,
    /// Refuses all until its wait is over.
    Open,
    /// Lets a few through to find out.
    HalfOpen,
    /// Refuses all until told otherwise.
    ForcedOpen,
    /// Lets all through and does not look.
    Disabled,
    /// Lets all through and only says when it would have opened.
    MetricsOnly,
}

impl State {
    /// Its name for labels and operators.
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

/// What one call says about the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// It has had enough of us: no failure, but no proof of health for a half-open breaker either.
    Throttled,
    /// Nothing.
    Neutral,
    /// Nothing: the caller gave up.
    Cancelled,
}

/// A finished call.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// What it says about the target.
    pub outcome: CallOutcome,
    /// Its answer began late.
    pub slow: bool,
    /// How long the target asked us to stay away.
    pub retry_after: Option<Duration>,
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Too many calls failed.
    FailureRate,
    /// Too many calls were slow.
    SlowRate,
    /// Too many failed in a row.
    ConsecutiveFailures,
    /// Too many probes failed, or were slow.
    ProbeFailed,
    /// Enough probes succeeded.
    ProbeSucceeded,
    /// Probes had no answer in time.
    HalfOpenTimeout,
    /// The wait was over.
    OpenTimeout,
    /// An operator said so.
    Manual,
}

impl Cause {
    /// Its name for labels and logs.
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

/// A change of state, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why.
    pub cause: Cause,
}

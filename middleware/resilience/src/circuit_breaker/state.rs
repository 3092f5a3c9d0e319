//! State machine of a breaker: closed, open, half-open. Pure; the caller passes the time.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    config::{Config, Mode},
    event::{CallOutcome, Cause, Observation, State, Transition},
    probes::ProbeRound,
    window::{Counts, Window},
};
use crate::jitter::{self, RandomFn};

/// Retry delay of a call rejected while probes are running: a probe round seldom takes longer.
const PROBING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A call was not permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallNotPermitted {
    /// Retry delay; `None` if an operator has opened the breaker.
    pub retry_after: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen(ProbeRound),
    ForcedOpen,
    Disabled,
    MetricsOnly { reported: bool },
}

/// The state machine.
///
/// Each transition begins a new epoch. A call carries the epoch of its admission, and a result from
/// an earlier epoch is ignored: a call admitted before the breaker opened says nothing about the
/// target's present state.
#[derive(Debug)]
pub struct StateMachine {
    config: Config,
    draw: RandomFn,
    phase: Phase,
    epoch: u64,
    window: Window,
    consecutive_failures: u32,
    /// Recently failed probe rounds: the exponent of the backoff.
    backoff_level: u32,
    /// Start of the period without an opening that reduces the backoff level by one.
    healthy_since: Instant,
    /// Transition of the last operation that another one followed at once.
    first_transition: Option<Transition>,
    transition: Option<Transition>,
}

impl StateMachine {
    /// Creates a machine in the state of `config.mode`.
    pub fn new(config: Config, draw: RandomFn, now: Instant) -> Self {
        let phase = match config.mode {
            Mode::Active => Phase::Closed,
            Mode::MetricsOnly => Phase::MetricsOnly { reported: false },
            Mode::Disabled => Phase::Disabled,
            Mode::ForcedOpen => Phase::ForcedOpen,
        };
        let window = Window::new(&config, now);
        Self {
            config,
            draw,
            phase,
            epoch: 0,
            window,
            consecutive_failures: 0,
            backoff_level: 0,
            healthy_since: now,
            first_transition: None,
            transition: None,
        }
    }

    /// Returns the state as of the last [`advance`](Self::advance) or call.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen(_) => State::HalfOpen,
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::Disabled => State::Disabled,
            Phase::MetricsOnly { .. } => State::MetricsOnly,
        }
    }

    /// Returns the current epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the counts of the window.
    pub fn counts(&self, now: Instant) -> Counts {
        self.window.counts(now)
    }

    /// Returns the remaining open time, or `None` in any other state.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Open { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        }
    }

    /// Takes a transition made by the last operation. There can be two: probes time out, and the
    /// next open time has passed too.
    pub fn take_transition(&mut self) -> Option<Transition> {
        self.first_transition.take().or_else(|| self.transition.take())
    }

    /// Ends the open time, so that probes decide.
    pub fn end_open_time(&mut self, now: Instant) {
        if let Phase::Open { until } = &mut self.phase {
            *until = now.min(*until);
        }
        self.advance(now);
    }

    /// Makes the transitions that depend on time alone: an open breaker becomes half-open at the
    /// end of its open time, and probes time out.
    pub fn advance(&mut self, now: Instant) {
        let epoch = self.epoch;
        self.expire_probes(now);
        if let Phase::Open { until } = self.phase
            && now >= until
        {
            if self.epoch != epoch {
                self.first_transition = self.transition.take();
            }
            self.transition_to(Phase::HalfOpen(ProbeRound::new(now, &self.config)), Cause::OpenTimeout, now);
        }
    }

    /// Admits a call and returns its epoch, or rejects it.
    pub fn acquire(&mut self, now: Instant) -> Result<u64, CallNotPermitted> {
        self.advance(now);
        match &mut self.phase {
            Phase::Closed | Phase::Disabled | Phase::MetricsOnly { .. } => Ok(self.epoch),
            Phase::Open { until } => Err(CallNotPermitted { retry_after: Some(until.saturating_duration_since(now)) }),
            Phase::HalfOpen(_) if crate::planted!("unlimited probes") => Ok(self.epoch),
            Phase::HalfOpen(round) => {
                round.try_acquire(&self.config).then_some(self.epoch).ok_or(CallNotPermitted { retry_after: Some(PROBING_RETRY_AFTER) })
            }
            Phase::ForcedOpen => Err(CallNotPermitted { retry_after: None }),
        }
    }

    /// Records the result of a call admitted in `epoch`. Returns `false` if that epoch is over.
    pub fn record(&mut self, epoch: u64, observation: Observation, now: Instant) -> bool {
        if epoch != self.epoch {
            return false;
        }
        match self.phase {
            Phase::Closed => self.record_closed(observation, now),
            Phase::HalfOpen(_) => self.record_probe(observation, now),
            Phase::MetricsOnly { reported } => self.record_disabled(observation, reported, now),
            // The first two admit no calls, the third records none.
            Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => {}
        }
        true
    }

    fn record_closed(&mut self, observation: Observation, now: Instant) {
        self.decay(now);
        if let Some(cause) = self.record_in_window(observation, now) {
            self.open(cause, observation.retry_after, now);
        }
    }

    fn record_disabled(&mut self, observation: Observation, reported: bool, now: Instant) {
        if let Some(cause) = self.record_in_window(observation, now)
            && !reported
        {
            self.transition = Some(Transition { from: State::MetricsOnly, to: State::MetricsOnly, cause });
            self.phase = Phase::MetricsOnly { reported: true };
        }
    }

    /// Counts a call and returns the limit that is reached. A success can complete the minimum of
    /// calls too.
    fn record_in_window(&mut self, observation: Observation, now: Instant) -> Option<Cause> {
        let failed = match observation.outcome {
            CallOutcome::Success => false,
            CallOutcome::Failure => true,
            CallOutcome::Throttled | CallOutcome::Neutral | CallOutcome::Cancelled => return None,
        };
        let counts = self.window.record(failed, observation.slow, now);
        self.consecutive_failures = if failed { self.consecutive_failures.saturating_add(1) } else { 0 };
        let enough = counts.total >= self.config.effective_min_calls();
        if self.config.consecutive_failures > 0 && self.consecutive_failures >= self.config.consecutive_failures {
            Some(Cause::ConsecutiveFailures)
        } else if enough && counts.reaches(counts.failed, self.config.failure_rate) {
            Some(Cause::FailureRate)
        } else if enough && counts.reaches(counts.slow, self.config.slow_rate) {
            Some(Cause::SlowRate)
        } else {
            None
        }
    }

    fn record_probe(&mut self, observation: Observation, now: Instant) {
        if let Phase::HalfOpen(round) = &mut self.phase {
            round.record(observation);
            self.try_finish_round(Cause::ProbeFailed, observation.retry_after, now);
        }
    }

    /// Fails the probes that timed out, and ignores their late results by a new epoch. The open
    /// time begins when they timed out, not with the call that notices it.
    fn expire_probes(&mut self, now: Instant) {
        if let Phase::HalfOpen(round) = &mut self.phase
            && let Some(expired_at) = round.expire(now, &self.config)
        {
            self.epoch += 1;
            self.try_finish_round(Cause::HalfOpenTimeout, None, expired_at);
        }
    }

    /// Ends the round as soon as its outcome is certain.
    fn try_finish_round(&mut self, failure: Cause, hint: Option<Duration>, now: Instant) {
        let Phase::HalfOpen(round) = &self.phase else { return };
        match round.is_recovered(&self.config) {
            None => {}
            Some(true) if crate::planted!("breaker that never closes") => {}
            Some(true) => self.transition_to(Phase::Closed, Cause::ProbeSucceeded, now),
            Some(false) => {
                // The level stops at the maximum open time: levels that do not lengthen it must not
                // need healthy windows either.
                if self.open_time() < Duration::from_millis(self.config.max_open_ms) {
                    self.backoff_level += 1;
                }
                self.open(failure, hint, now);
            }
        }
    }

    /// Reduces the level by one for each period without an opening.
    fn decay(&mut self, now: Instant) {
        let span = Duration::from_millis(self.config.window_ms.max(1));
        while self.backoff_level > 0 && now.saturating_duration_since(self.healthy_since) >= span {
            self.backoff_level -= 1;
            self.healthy_since += span;
        }
    }

    /// Returns the open time at the current level.
    fn open_time(&self) -> Duration {
        let wait = Duration::from_millis(self.config.open_ms).saturating_mul(2_u32.saturating_pow(self.backoff_level));
        wait.min(Duration::from_millis(self.config.max_open_ms))
    }

    fn open(&mut self, cause: Cause, hint: Option<Duration>, now: Instant) {
        let wait = jitter::jittered(self.open_time(), 0.2, self.draw)
            .max(hint.unwrap_or_default().min(Duration::from_millis(self.config.max_retry_after_ms)));
        self.transition_to(Phase::Open { until: now + wait }, cause, now);
    }

    /// Enters another state with a new epoch and an empty window, so that no earlier call counts
    /// again.
    fn transition_to(&mut self, phase: Phase, cause: Cause, now: Instant) {
        let from = self.state();
        self.phase = phase;
        self.epoch += 1;
        self.window = Window::new(&self.config, now);
        self.consecutive_failures = 0;
        self.healthy_since = now;
        self.transition = Some(Transition { from, to: self.state(), cause });
    }

    /// Opens the breaker for `wait`, as if calls had failed.
    pub fn open_for(&mut self, wait: Duration, now: Instant) {
        self.transition_to(Phase::Open { until: now + wait }, Cause::Manual, now);
    }

    /// Sets the mode. `Active` clears all counts and closes the breaker; any other mode stays until
    /// changed.
    pub fn set_mode(&mut self, mode: Mode, now: Instant) {
        let phase = match mode {
            Mode::Active => {
                self.backoff_level = 0;
                Phase::Closed
            }
            Mode::MetricsOnly => Phase::MetricsOnly { reported: false },
            Mode::Disabled => Phase::Disabled,
            Mode::ForcedOpen => Phase::ForcedOpen,
        };
        let from = self.state();
        self.transition_to(phase, Cause::Manual, now);
        if self.state() == from {
            self.transition = None;
        }
    }
}

#[cfg(test)]
mod tests;

//! Probes of a half-open breaker: a bounded number of calls that test whether the target has
//! recovered.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    config::Config,
    event::{CallOutcome, Observation},
    window::Counts,
};

/// One round of probes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProbeRound {
    /// Admitted probes, finished or not.
    admitted: u32,
    finished: Counts,
    /// When unfinished probes count as failed.
    expires_at: Instant,
}

impl ProbeRound {
    pub(super) fn new(now: Instant, config: &Config) -> Self {
        Self { admitted: 0, finished: Counts::default(), expires_at: now + timeout(config) }
    }

    /// Admits a probe if a slot is free.
    pub(super) fn try_acquire(&mut self, config: &Config) -> bool {
        let free = self.admitted < config.probes;
        self.admitted += u32::from(free);
        free
    }

    /// Records the result of a probe; returns its slot if the result is neutral.
    pub(super) fn record(&mut self, observation: Observation) {
        match observation.outcome {
            CallOutcome::Neutral | CallOutcome::Cancelled => self.admitted = self.admitted.saturating_sub(1),
            verdict @ (CallOutcome::Success | CallOutcome::Failure | CallOutcome::Throttled) => {
                self.finished.total += 1;
                self.finished.failed += u32::from(verdict != CallOutcome::Success);
                self.finished.slow += u32::from(observation.slow);
            }
        }
    }

    /// Fails the probes that have timed out; returns when, if there were any.
    pub(super) fn expire(&mut self, now: Instant, config: &Config) -> Option<Instant> {
        if now < self.expires_at {
            return None;
        }
        let expired_at = std::mem::replace(&mut self.expires_at, now + timeout(config));
        let lost = self.admitted.saturating_sub(self.finished.total);
        self.finished.total += lost;
        self.finished.failed += lost;
        (lost > 0).then_some(expired_at)
    }

    /// Returns whether the target has recovered; `None` while outstanding probes can change the
    /// result.
    pub(super) fn is_recovered(&self, config: &Config) -> Option<bool> {
        let Counts { total, failed, slow } = self.finished;
        let too_many_failed = threshold(config.failure_rate, config.probes);
        let too_many_slow = threshold(config.slow_rate, config.probes);
        let fast_enough = config.slow_call_ms == 0 || total - slow > config.probes - too_many_slow;
        if failed >= too_many_failed || slow >= too_many_slow {
            Some(false)
        } else if total - failed > config.probes - too_many_failed && fast_enough {
            Some(true)
        } else {
            None
        }
    }
}

fn timeout(config: &Config) -> Duration {
    Duration::from_millis(config.half_open_timeout_ms)
}

/// Smallest number of probes that is at least `rate` of them.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=probes")]
fn threshold(rate: f64, probes: u32) -> u32 {
    ((rate * f64::from(probes)).ceil() as u32).clamp(1, probes)
}

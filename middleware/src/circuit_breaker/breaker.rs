//! One breaker as all its users share it: the way in, the permit that brings the verdict back, and the operator's handle.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    config::{Config, Mode},
    gate::Gate,
    metrics::Metrics,
    state::{Machine, Refused},
    transition::{Observation, State, Transition, Verdict},
    verdict::Finding,
    window::Counts,
};
use crate::jitter;

/// A breaker. Cheap to share: letting a call through costs one atomic load while it is closed.
pub struct Breaker {
    name: &'static str,
    config: Config,
    gate: Gate,
    metrics: Metrics,
}

impl Breaker {
    /// A breaker for the target `name`.
    pub fn new(name: &'static str, config: &Config) -> Arc<Self> {
        let machine = Machine::new(config.clone(), jitter::draw, Instant::now());
        let metrics = Metrics::new(name);
        metrics.state(machine.state());
        Arc::new(Self { name, config: config.clone(), gate: Gate::new(machine), metrics })
    }

    /// What it guards.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Lets a call that must be over at `deadline` through, or not.
    pub fn acquire(self: &Arc<Self>, now: Instant, deadline: Option<Instant>) -> Result<Permit, Refused> {
        match self.gate.acquire(now, |transition| self.announce(transition)) {
            Ok(epoch) => Ok(Permit { breaker: self.clone(), epoch, started: now, deadline, begun_after: None, settled: false }),
            Err(refused) => {
                self.metrics.rejected();
                Err(refused)
            }
        }
    }

    fn with<T>(&self, operate: impl FnOnce(&mut Machine) -> T) -> T {
        self.gate.with(operate, |transition| self.announce(transition))
    }

    fn announce(&self, transition: Transition) {
        self.metrics.transition(transition);
        let Transition { from, to, cause } = transition;
        match to {
            State::Open | State::ForcedOpen => tracing::warn!(upstream = self.name, ?from, ?to, ?cause, "circuit breaker opened"),
            _ if from == to => tracing::warn!(upstream = self.name, ?cause, "circuit breaker would have opened"),
            _ => tracing::info!(upstream = self.name, ?from, ?to, ?cause, "circuit breaker changed"),
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("name", &self.name).field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// One call that was let through. Whatever becomes of it, the breaker gets its verdict or its slot back.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    epoch: u64,
    started: Instant,
    deadline: Option<Instant>,
    /// How long the answer took to begin; how long it then goes on is its own business.
    begun_after: Option<Duration>,
    settled: bool,
}

impl Permit {
    /// The target.
    pub fn name(&self) -> &'static str {
        self.breaker.name
    }

    /// The answer has begun, its status is still to come.
    #[must_use]
    pub fn begun(mut self, now: Instant) -> Self {
        self.begun_after = Some(now.saturating_duration_since(self.started));
        self
    }

    /// The call is over.
    pub fn settle(mut self, finding: Finding, hint: Option<Duration>, now: Instant) {
        let verdict = match finding {
            Finding::Verdict(verdict) => verdict,
            Finding::TimedOut => self.timed_out(),
        };
        self.finish(verdict, hint, now);
    }

    fn finish(&mut self, verdict: Verdict, hint: Option<Duration>, now: Instant) {
        self.settled = true;
        let observation = Observation { verdict, slow: self.is_slow(now), hint };
        let Breaker { config, metrics, .. } = &*self.breaker;
        let (counted, counts) = self.breaker.with(|machine| (machine.record(self.epoch, observation, now), machine.counts(now)));
        metrics.window(counts, config.enough_calls());
        if counted {
            metrics.call(verdict, observation.slow);
        } else {
            metrics.stale();
        }
    }

    fn timed_out(&self) -> Verdict {
        let meaningful = Duration::from_millis(self.breaker.config.meaningful_timeout_ms);
        let patient = self.deadline.is_none_or(|deadline| deadline.saturating_duration_since(self.started) >= meaningful);
        if patient { Verdict::Failure } else { Verdict::Neutral }
    }

    fn is_slow(&self, now: Instant) -> bool {
        self.breaker.config.is_slow(self.begun_after.unwrap_or_else(|| now.saturating_duration_since(self.started)))
    }
}

impl Drop for Permit {
    /// Nobody waited for the answer. Without this an outer timeout would hide every hang.
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let now = Instant::now();
        let verdict = if std::thread::panicking() {
            Verdict::Failure
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.timed_out()
        } else if self.is_slow(now) {
            Verdict::Success
        } else {
            Verdict::Cancelled
        };
        self.finish(verdict, None, now);
    }
}

/// An operator's hand on a breaker; all clones of its layer feel it.
#[derive(Debug, Clone)]
pub struct BreakerHandle(pub(super) Arc<Breaker>);

impl BreakerHandle {
    /// What it guards.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// The state, as of the last call.
    pub fn state(&self) -> State {
        self.0.with(|machine| machine.state())
    }

    /// How long it stays open; `None` in any other state.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.with(|machine| machine.remaining(Instant::now()))
    }

    /// What it has seen in its window.
    pub fn counts(&self) -> Counts {
        self.0.with(|machine| machine.counts(Instant::now()))
    }

    /// Opens it for `wait`; then probes decide.
    pub fn open_for(&self, wait: Duration) {
        self.0.with(|machine| machine.open_for(wait, Instant::now()));
    }

    /// Puts it into `mode`. `Active` closes it and forgets what it has seen.
    pub fn set_mode(&self, mode: Mode) {
        self.0.with(|machine| machine.set_mode(mode, Instant::now()));
    }
}

#[cfg(test)]
mod tests;

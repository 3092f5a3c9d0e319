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
use crate::{jitter, metrics::on_look};

/// A breaker. Cheap to share: letting a call through costs one atomic load while it is closed.
pub struct Breaker {
    name: &'static str,
    /// Which of the target's endpoints, if not the target.
    endpoint: Option<Arc<str>>,
    config: Config,
    gate: Gate,
    metrics: Metrics,
    heed: Heed,
}

/// Learns of each transition, under the lock of the breaker.
type Heed = Box<dyn Fn(Transition) + Send + Sync>;

impl Breaker {
    /// A breaker for the target `name`, of which a service has one: its series are those of the target.
    pub fn new(name: &'static str, config: &Config) -> Arc<Self> {
        Self::build(name, None, config, Metrics::of_target(name), Box::new(|_| {}))
    }

    /// A breaker for one `endpoint` of the target `name`, known as `label` in metrics; none if there are too many. `heed` learns of each
    /// transition, under the lock of the breaker.
    pub(crate) fn of_endpoint(name: &'static str, endpoint: Arc<str>, label: Option<Arc<str>>, config: &Config, heed: Heed) -> Arc<Self> {
        Self::build(name, Some(endpoint), config, Metrics::of_endpoint(name, label), heed)
    }

    fn build(name: &'static str, endpoint: Option<Arc<str>>, config: &Config, metrics: Metrics, heed: Heed) -> Arc<Self> {
        let machine = Machine::new(config.clone(), jitter::draw, Instant::now());
        metrics.state(machine.state());
        let breaker = Arc::new(Self { name, endpoint, config: config.clone(), gate: Gate::new(machine), metrics, heed });
        on_look(&breaker, |breaker: &Self| breaker.show(breaker.with(|machine| machine.counts(Instant::now()))));
        breaker
    }

    /// What it guards.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its operator's handle.
    pub fn handle(self: &Arc<Self>) -> BreakerHandle {
        BreakerHandle(self.clone())
    }

    /// Whether all calls are let through. Costs an atomic load.
    pub(crate) fn is_closed(&self) -> bool {
        self.gate.epoch_of_all().is_some()
    }

    /// What it guards is gone: stragglers decide nothing any more, and its series show a breaker at rest.
    pub(crate) fn retire(&self) {
        self.gate.with(|machine| machine.set_mode(Mode::Disabled, Instant::now()), |transition| (self.heed)(transition));
        self.metrics.state(State::Disabled);
        self.show(Counts::default());
    }

    fn show(&self, window: Counts) {
        self.metrics.window(window, self.config.enough_calls());
    }

    /// Lets a call that must be over at `deadline` through, or not.
    pub fn acquire(self: &Arc<Self>, now: Instant, deadline: Option<Instant>) -> Result<Permit, Refused> {
        self.admit(now, deadline).inspect_err(|_| self.metrics.rejected())
    }

    /// As [`acquire`](Self::acquire) for a call that can go elsewhere, so that it is not lost.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant, deadline: Option<Instant>) -> Result<Permit, Refused> {
        let epoch = self.gate.acquire(now, |transition| self.announce(transition))?;
        Ok(Permit { breaker: self.clone(), epoch, started: now, deadline, begun_after: None, settled: false })
    }

    fn with<T>(&self, operate: impl FnOnce(&mut Machine) -> T) -> T {
        self.gate.with(operate, |transition| self.announce(transition))
    }

    fn announce(&self, transition: Transition) {
        self.metrics.transition(transition);
        (self.heed)(transition);
        let (upstream, endpoint) = (self.name, self.endpoint.as_deref());
        let Transition { from, to, cause } = transition;
        match to {
            State::Open | State::ForcedOpen => tracing::warn!(upstream, endpoint, ?from, ?to, ?cause, "circuit breaker opened"),
            _ if from == to => tracing::warn!(upstream, endpoint, ?cause, "circuit breaker would have opened"),
            _ => tracing::info!(upstream, endpoint, ?from, ?to, ?cause, "circuit breaker changed"),
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
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
            Finding::NotTried => Verdict::Failure,
        };
        self.finish(verdict, hint, now);
    }

    fn finish(&mut self, verdict: Verdict, hint: Option<Duration>, now: Instant) {
        self.settled = true;
        let observation = Observation { verdict, slow: self.is_slow(now), hint };
        if self.breaker.with(|machine| machine.record(self.epoch, observation, now)) {
            self.breaker.metrics.call(verdict, observation.slow);
        } else {
            self.breaker.metrics.stale();
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

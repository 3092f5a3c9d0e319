//! One breaker as all its users share it: the way in, the permit that brings the verdict back, and the operator's handle.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    config::{Config, Mode},
    shared_state::SharedState,
    metrics::Metrics,
    state::{StateMachine, CallNotPermitted},
    event::{Observation, State, Transition, CallOutcome},
    classify::Classification,
    window::Counts,
};
use crate::{jitter, metrics::register_observable};

/// A breaker. Cheap to share: letting a call through costs one atomic load while it is closed.
pub struct Breaker {
    name: &'static str,
    /// Which of the target's endpoints, if not the target.
    endpoint: Option<Arc<str>>,
    config: Config,
    shared: SharedState,
    metrics: Metrics,
    on_transition: TransitionListener,
}

/// Learns of each transition, under the lock of the breaker.
type TransitionListener = Box<dyn Fn(Transition) + Send + Sync>;

impl Breaker {
    /// A breaker for the target `name`, of which a service has one: its series are those of the target.
    pub fn new(name: &'static str, config: &Config) -> Arc<Self> {
        Self::build(name, None, config, Metrics::for_target(name), Box::new(|_| {}))
    }

    /// A breaker for one `endpoint` of the target `name`, known as `label` in metrics; none if there are too many. `heed` learns of each
    /// transition, under the lock of the breaker.
    pub(crate) fn for_endpoint(name: &'static str, endpoint: Arc<str>, label: Option<Arc<str>>, config: &Config, on_transition: TransitionListener) -> Arc<Self> {
        Self::build(name, Some(endpoint), config, Metrics::for_endpoint(name, label), on_transition)
    }

    fn build(name: &'static str, endpoint: Option<Arc<str>>, config: &Config, metrics: Metrics, heed: TransitionListener) -> Arc<Self> {
        let machine = StateMachine::new(config.clone(), jitter::random_unit, Instant::now());
        metrics.set_state(machine.state());
        let breaker = Arc::new(Self { name, endpoint, config: config.clone(), shared: SharedState::new(machine), metrics, on_transition: heed });
        register_observable(&breaker, |breaker: &Self| breaker.update_window_metrics(breaker.with(|machine| machine.counts(Instant::now()))));
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
        self.shared.closed_epoch().is_some()
    }

    /// What it guards is gone: stragglers decide nothing any more, and its series show a breaker at rest.
    pub(crate) fn retire(&self) {
        self.shared.with(|machine| machine.set_mode(Mode::Disabled, Instant::now()), |transition| (self.on_transition)(transition));
        self.metrics.set_state(State::Disabled);
        self.update_window_metrics(Counts::default());
    }

    fn update_window_metrics(&self, window: Counts) {
        self.metrics.record_window(window, self.config.effective_min_calls());
    }

    /// Lets a call that must be over at `deadline` through, or not.
    pub fn acquire(self: &Arc<Self>, now: Instant, deadline: Option<Instant>) -> Result<Permit, CallNotPermitted> {
        self.try_acquire(now, deadline).inspect_err(|_| self.metrics.record_rejected())
    }

    /// As [`acquire`](Self::acquire) for a call that can go elsewhere, so that it is not lost.
    pub(crate) fn try_acquire(self: &Arc<Self>, now: Instant, deadline: Option<Instant>) -> Result<Permit, CallNotPermitted> {
        let epoch = self.shared.acquire(now, |transition| self.notify_transition(transition))?;
        Ok(Permit { breaker: self.clone(), epoch, started: now, deadline, time_to_headers: None, reported: false })
    }

    fn with<T>(&self, operate: impl FnOnce(&mut StateMachine) -> T) -> T {
        self.shared.with(operate, |transition| self.notify_transition(transition))
    }

    fn notify_transition(&self, transition: Transition) {
        self.metrics.record_transition(transition);
        (self.on_transition)(transition);
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
            .field("gate", &self.shared)
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
    time_to_headers: Option<Duration>,
    reported: bool,
}

impl Permit {
    /// The target.
    pub fn name(&self) -> &'static str {
        self.breaker.name
    }

    /// The answer has begun, its status is still to come.
    #[must_use]
    pub fn headers_received(mut self, now: Instant) -> Self {
        self.time_to_headers = Some(now.saturating_duration_since(self.started));
        self
    }

    /// The call is over.
    pub fn report(mut self, finding: Classification, hint: Option<Duration>, now: Instant) {
        let verdict = match finding {
            Classification::Outcome(verdict) => verdict,
            Classification::TimedOut => self.timeout_outcome(),
            Classification::ConnectBackoff => CallOutcome::Failure,
        };
        self.record(verdict, hint, now);
    }

    fn record(&mut self, verdict: CallOutcome, hint: Option<Duration>, now: Instant) {
        self.reported = true;
        let observation = Observation { outcome: verdict, slow: self.is_slow(now), retry_after: hint };
        if self.breaker.with(|machine| machine.record(self.epoch, observation, now)) {
            self.breaker.metrics.record_call(verdict, observation.slow);
        } else {
            self.breaker.metrics.record_stale();
        }
    }

    fn timeout_outcome(&self) -> CallOutcome {
        let min_timeout = Duration::from_millis(self.breaker.config.min_failure_timeout_ms);
        let had_enough_time = self.deadline.is_none_or(|deadline| deadline.saturating_duration_since(self.started) >= min_timeout);
        if had_enough_time { CallOutcome::Failure } else { CallOutcome::Neutral }
    }

    fn is_slow(&self, now: Instant) -> bool {
        self.breaker.config.is_slow(self.time_to_headers.unwrap_or_else(|| now.saturating_duration_since(self.started)))
    }
}

impl Drop for Permit {
    /// Nobody waited for the answer. Without this an outer timeout would hide every hang.
    fn drop(&mut self) {
        if self.reported {
            return;
        }
        let now = Instant::now();
        let verdict = if std::thread::panicking() {
            CallOutcome::Failure
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.timeout_outcome()
        } else if self.is_slow(now) {
            CallOutcome::Success
        } else {
            CallOutcome::Cancelled
        };
        self.record(verdict, None, now);
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

//! A breaker shared by all its users: admission, the permit that reports the outcome, and the
//! operator handle.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    classify::Classification,
    config::{Config, Mode},
    event::{CallOutcome, Observation, State, Transition},
    metrics::Metrics,
    shared_state::SharedState,
    state::{CallNotPermitted, StateMachine},
    window::Counts,
};
use crate::{jitter, metrics::register_observable, time_limit::TimeLimit};

/// A circuit breaker. While it is closed, admitting a call costs one atomic load.
pub struct Breaker {
    name: &'static str,
    /// Endpoint of the target, or `None` for a breaker of the whole target.
    endpoint: Option<Arc<str>>,
    config: Config,
    shared: SharedState,
    metrics: Metrics,
    on_transition: TransitionListener,
}

/// Called on each transition, under the lock of the breaker.
type TransitionListener = Box<dyn Fn(Transition) + Send + Sync>;

impl Breaker {
    /// Creates the breaker of the target `name`. Create only one per process and target, because
    /// its series carry the target's labels.
    pub fn new(name: &'static str, config: &Config) -> Arc<Self> {
        Self::build(name, None, config, Metrics::for_target(name), Box::new(|_| {}))
    }

    /// Creates a breaker for one `endpoint` of the target `name`. Its metrics carry `label`, or the
    /// shared label if there are too many endpoints. `on_transition` is called on each transition,
    /// under the lock of the breaker.
    pub fn for_endpoint(
        name: &'static str,
        endpoint: Arc<str>,
        label: Option<Arc<str>>,
        config: &Config,
        on_transition: TransitionListener,
    ) -> Arc<Self> {
        Self::build(name, Some(endpoint), config, Metrics::for_endpoint(name, label), on_transition)
    }

    fn build(name: &'static str, endpoint: Option<Arc<str>>, config: &Config, metrics: Metrics, heed: TransitionListener) -> Arc<Self> {
        let machine = StateMachine::new(config.clone(), jitter::random_unit, Instant::now());
        metrics.set_state(machine.state());
        let breaker =
            Arc::new(Self { name, endpoint, config: config.clone(), shared: SharedState::new(machine), metrics, on_transition: heed });
        register_observable(&breaker, |breaker: &Self| {
            // Without a call nothing else notices that the open time is over.
            breaker.update_window_metrics(breaker.with_current(|machine, now| machine.counts(now)));
        });
        breaker
    }

    /// Returns the name of the target.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns a handle to inspect and operate the breaker.
    pub fn handle(self: &Arc<Self>) -> BreakerHandle {
        BreakerHandle(self.clone())
    }

    /// Returns whether all calls are admitted. Costs one atomic load.
    pub fn is_closed(&self) -> bool {
        self.shared.closed_epoch().is_some()
    }

    /// Disables the breaker of a removed endpoint: late results are ignored, and its series show a
    /// disabled breaker without calls.
    pub fn retire(&self) {
        self.shared.with(|machine| machine.set_mode(Mode::Disabled, Instant::now()), |transition| (self.on_transition)(transition));
        self.metrics.set_state(State::Disabled);
        self.update_window_metrics(Counts::default());
    }

    fn update_window_metrics(&self, window: Counts) {
        self.metrics.record_window(window, self.config.effective_min_calls());
    }

    /// Admits a call that ends at `deadline`, or rejects it.
    pub fn acquire(self: &Arc<Self>, now: Instant, deadline: Option<TimeLimit>) -> Result<Permit, CallNotPermitted> {
        self.try_acquire(now, deadline).inspect_err(|_| self.metrics.record_rejected())
    }

    /// Like [`acquire`](Self::acquire), but does not count the rejection: the call can go to
    /// another endpoint.
    pub fn try_acquire(self: &Arc<Self>, now: Instant, deadline: Option<TimeLimit>) -> Result<Permit, CallNotPermitted> {
        let epoch = self.shared.acquire(now, |transition| self.notify_transition(transition))?;
        Ok(Permit { breaker: self.clone(), epoch, started: now, deadline, time_to_headers: None, reported: false })
    }

    /// As [`with`](Self::with), in the state as of now.
    fn with_current<T>(&self, operate: impl FnOnce(&mut StateMachine, Instant) -> T) -> T {
        let now = Instant::now();
        self.with(|machine| {
            machine.advance(now);
            operate(machine, now)
        })
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
            _ => tracing::info!(upstream, endpoint, ?from, ?to, ?cause, "circuit breaker state changed"),
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

/// An admitted call. Every way to end it reports an outcome or returns its slot.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    epoch: u64,
    started: Instant,
    deadline: Option<TimeLimit>,
    /// Time from the start to the response head. The duration of the body is not the target's
    /// latency.
    time_to_headers: Option<Duration>,
    reported: bool,
}

impl Permit {
    /// Returns the name of the target.
    pub fn name(&self) -> &'static str {
        self.breaker.name
    }

    /// Records the response head, with the status still to come.
    #[must_use]
    pub fn headers_received(mut self, now: Instant) -> Self {
        self.time_to_headers = Some(now.saturating_duration_since(self.started));
        self
    }

    /// Records the response head of a call whose response may be a stream. A probe succeeds with
    /// it, because its round cannot wait for the end of a stream.
    pub fn undeclared_headers_received(mut self, now: Instant) -> Option<Self> {
        self.deadline = None;
        let permit = self.headers_received(now);
        if permit.breaker.is_closed() {
            return Some(permit);
        }
        permit.report(CallOutcome::Success.into(), None, now);
        None
    }

    /// Reports the outcome. `hint` is the retry delay that the target asked for.
    pub fn report(mut self, finding: Classification, hint: Option<Duration>, now: Instant) {
        let verdict = match finding {
            Classification::Outcome(verdict) => verdict,
            Classification::TimedOut => self.timeout_outcome(),
            Classification::NoEvidence => CallOutcome::Neutral,
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
        let had_enough_time = self.deadline.is_none_or(|limit| limit.remaining(self.started) >= min_timeout);
        if had_enough_time { CallOutcome::Failure } else { CallOutcome::Neutral }
    }

    fn is_slow(&self, now: Instant) -> bool {
        self.breaker.config.is_slow(self.time_to_headers.unwrap_or_else(|| now.saturating_duration_since(self.started)))
    }
}

impl Drop for Permit {
    /// Reports a call whose response was dropped unread. Without this an outer timeout would hide
    /// every hang.
    fn drop(&mut self) {
        if self.reported {
            return;
        }
        let now = Instant::now();
        let verdict = if std::thread::panicking() {
            CallOutcome::Failure
        } else if let Some(limit) = self.deadline.filter(|limit| limit.has_passed(now)) {
            if limit.is_evidence(self.started) { self.timeout_outcome() } else { CallOutcome::Neutral }
        } else if self.is_slow(now) {
            CallOutcome::Success
        } else {
            CallOutcome::Cancelled
        };
        self.record(verdict, None, now);
    }
}

/// Operator handle of a breaker. Changes apply to all clones of its layer.
#[derive(Debug, Clone)]
pub struct BreakerHandle(pub(super) Arc<Breaker>);

impl BreakerHandle {
    /// Returns the name of the target.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Returns the current state: a breaker is half-open once its open time is over.
    pub fn state(&self) -> State {
        self.0.with_current(|machine, _| machine.state())
    }

    /// Returns the remaining open time, or `None` in any other state.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.with_current(|machine, now| machine.remaining(now))
    }

    /// Returns the counts of the current window.
    pub fn counts(&self) -> Counts {
        self.0.with(|machine| machine.counts(Instant::now()))
    }

    /// Opens the breaker for `wait`; afterwards probes decide.
    pub fn open_for(&self, wait: Duration) {
        self.0.with(|machine| machine.open_for(wait, Instant::now()));
    }

    /// Ends the open time, because a health check has found that the target recovered. Probes
    /// decide. Without effect in any other state.
    pub fn end_open_time(&self) {
        self.0.with(|machine| machine.end_open_time(Instant::now()));
    }

    /// Sets the mode. `Active` closes the breaker and clears its window.
    pub fn set_mode(&self, mode: Mode) {
        self.0.with(|machine| machine.set_mode(mode, Instant::now()));
    }
}

#[cfg(test)]
mod tests;

//! Metrics of a breaker; every series exists from the start.

use std::sync::Arc;

use super::{
    event::{CallOutcome, Cause, State, Transition},
    window::Counts,
};

/// Label values of the counted transitions: new state and cause. `would_open` stands for an opening
/// suppressed in metrics-only mode.
const TRANSITIONS: [(&str, Cause); 15] = [
    ("open", Cause::FailureRate),
    ("open", Cause::SlowRate),
    ("open", Cause::ConsecutiveFailures),
    ("open", Cause::ProbeFailed),
    ("open", Cause::HalfOpenTimeout),
    ("open", Cause::Manual),
    ("half_open", Cause::OpenTimeout),
    ("closed", Cause::ProbeSucceeded),
    ("closed", Cause::Manual),
    ("forced_open", Cause::Manual),
    ("disabled", Cause::Manual),
    ("metrics_only", Cause::Manual),
    ("would_open", Cause::FailureRate),
    ("would_open", Cause::SlowRate),
    ("would_open", Cause::ConsecutiveFailures),
];

/// `scope` of the breaker of a target.
const TARGET: &str = "target";

/// Metric handles of one breaker, looked up once.
pub(super) struct Metrics {
    state: metrics::Gauge,
    manual: metrics::Gauge,
    failure_ratio: metrics::Gauge,
    slow_ratio: metrics::Gauge,
    window_calls: metrics::Gauge,
    transitions: [metrics::Counter; TRANSITIONS.len()],
    success: metrics::Counter,
    slow_success: metrics::Counter,
    failure: metrics::Counter,
    slow_failure: metrics::Counter,
    neutral: metrics::Counter,
    cancelled: metrics::Counter,
    stale: metrics::Counter,
    rejected: metrics::Counter,
}

/// Labels of the series. A target breaker has an empty `endpoint`, which Prometheus treats as
/// absent.
struct SeriesLabels {
    target: &'static str,
    breaker: &'static str,
    endpoint: Arc<str>,
}

impl SeriesLabels {
    fn gauge(&self, name: &'static str) -> metrics::Gauge {
        crate::gauge!(name, "target" => self.target, "scope" => self.breaker, "endpoint" => self.endpoint.clone())
    }
}

impl Metrics {
    pub(super) fn for_target(target: &'static str) -> Self {
        let owner = SeriesLabels { target, breaker: TARGET, endpoint: "".into() };
        Self::new(&owner, |name| owner.gauge(name))
    }

    /// Endpoints without a `label` share counters. They have no gauges, because a shared gauge
    /// would only show the last writer.
    pub(super) fn for_endpoint(target: &'static str, label: Option<Arc<str>>) -> Self {
        let shared = label.is_none();
        let owner = SeriesLabels { target, breaker: "endpoint", endpoint: label.unwrap_or_else(|| "other".into()) };
        Self::new(&owner, |name| if shared { metrics::Gauge::noop() } else { owner.gauge(name) })
    }

    fn new(owner: &SeriesLabels, gauge: impl Fn(&'static str) -> metrics::Gauge) -> Self {
        let SeriesLabels { target, breaker, endpoint } = owner;
        let transitions = TRANSITIONS.map(|(to, cause)| {
            crate::counter!("palisade.breaker.transitions", "target" => *target, "scope" => *breaker, "endpoint" => endpoint.clone(),
                "to" => to, "reason" => cause.as_str())
        });
        let calls = |outcome: &'static str| {
            crate::counter!("palisade.breaker.calls", "target" => *target, "scope" => *breaker, "endpoint" => endpoint.clone(),
                "outcome" => outcome)
        };
        Self {
            state: gauge("palisade.breaker.state"),
            // Only the breaker of a target can be operated.
            manual: if *breaker == TARGET { crate::gauge!("palisade.breaker.manual", "target" => *target) } else { metrics::Gauge::noop() },
            failure_ratio: gauge("palisade.breaker.failure_ratio"),
            slow_ratio: gauge("palisade.breaker.slow_ratio"),
            window_calls: gauge("palisade.breaker.window_calls"),
            transitions,
            success: calls("success"),
            slow_success: calls("slow_success"),
            failure: calls("failure"),
            slow_failure: calls("slow_failure"),
            neutral: calls("neutral"),
            cancelled: calls("cancelled"),
            stale: calls("stale"),
            rejected: crate::counter!("palisade.breaker.rejected", "target" => *target, "scope" => *breaker,
                "endpoint" => endpoint.clone()),
        }
    }

    /// Sets the state gauge: 0 admits calls, 1 rejects them, 2 admits probes. Shows whether an
    /// operator chose the state.
    pub(super) fn set_state(&self, state: State) {
        self.manual.set(u32::from(matches!(state, State::Disabled | State::MetricsOnly | State::ForcedOpen)));
        self.state.set(match state {
            State::Closed | State::Disabled | State::MetricsOnly => 0,
            State::Open | State::ForcedOpen => 1,
            State::HalfOpen => 2,
        });
    }

    pub(super) fn record_transition(&self, Transition { from, to, cause }: Transition) {
        self.set_state(to);
        let to = if (from, to) == (State::MetricsOnly, State::MetricsOnly) { "would_open" } else { to.as_str() };
        if let Some(index) = TRANSITIONS.iter().position(|counted| *counted == (to, cause)) {
            self.transitions[index].increment(1);
        }
    }

    /// Sets the window gauges. The rates are NaN below `enough` calls.
    pub(super) fn record_window(&self, counts: Counts, enough: u32) {
        let rate = |part| if counts.total >= enough { counts.rate(part) } else { f64::NAN };
        self.failure_ratio.set(rate(counts.failed));
        self.slow_ratio.set(rate(counts.slow));
        self.window_calls.set(counts.total);
    }

    pub(super) fn record_call(&self, verdict: CallOutcome, slow: bool) {
        let counter = match (verdict, slow) {
            (CallOutcome::Success, false) => &self.success,
            (CallOutcome::Success, true) => &self.slow_success,
            (CallOutcome::Failure, false) => &self.failure,
            (CallOutcome::Failure, true) => &self.slow_failure,
            (CallOutcome::Throttled | CallOutcome::Neutral, _) => &self.neutral,
            (CallOutcome::Cancelled, _) => &self.cancelled,
        };
        counter.increment(1);
    }

    pub(super) fn record_stale(&self) {
        self.stale.increment(1);
    }

    pub(super) fn record_rejected(&self) {
        self.rejected.increment(1);
    }
}

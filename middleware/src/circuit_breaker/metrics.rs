//! What a breaker shows of itself; every series exists from the start.

use super::{
    transition::{State, Transition, Verdict},
    window::Counts,
};

/// The handles of one breaker, looked up once.
pub(super) struct Metrics {
    state: metrics::Gauge,
    failure_ratio: metrics::Gauge,
    slow_ratio: metrics::Gauge,
    window_calls: metrics::Gauge,
    to_closed: metrics::Counter,
    to_open: metrics::Counter,
    to_half_open: metrics::Counter,
    to_forced_open: metrics::Counter,
    to_disabled: metrics::Counter,
    to_metrics_only: metrics::Counter,
    would_open: metrics::Counter,
    success: metrics::Counter,
    slow_success: metrics::Counter,
    failure: metrics::Counter,
    slow_failure: metrics::Counter,
    neutral: metrics::Counter,
    cancelled: metrics::Counter,
    stale: metrics::Counter,
    rejected: metrics::Counter,
}

impl Metrics {
    pub(super) fn new(target: &'static str) -> Self {
        let to = |to: &'static str| metrics::counter!("palisade.breaker.transitions", "target" => target, "to" => to);
        let calls = |outcome: &'static str| metrics::counter!("palisade.breaker.calls", "target" => target, "outcome" => outcome);
        Self {
            state: metrics::gauge!("palisade.breaker.state", "target" => target),
            failure_ratio: metrics::gauge!("palisade.breaker.failure_ratio", "target" => target),
            slow_ratio: metrics::gauge!("palisade.breaker.slow_ratio", "target" => target),
            window_calls: metrics::gauge!("palisade.breaker.window_calls", "target" => target),
            to_closed: to("closed"),
            to_open: to("open"),
            to_half_open: to("half_open"),
            to_forced_open: to("forced_open"),
            to_disabled: to("disabled"),
            to_metrics_only: to("metrics_only"),
            would_open: to("would_open"),
            success: calls("success"),
            slow_success: calls("slow_success"),
            failure: calls("failure"),
            slow_failure: calls("slow_failure"),
            neutral: calls("neutral"),
            cancelled: calls("cancelled"),
            stale: calls("stale"),
            rejected: metrics::counter!("palisade.breaker.rejected", "target" => target),
        }
    }

    /// 0 lets calls through, 1 refuses them, 2 lets some through.
    pub(super) fn state(&self, state: State) {
        self.state.set(match state {
            State::Closed | State::Disabled | State::MetricsOnly => 0,
            State::Open | State::ForcedOpen => 1,
            State::HalfOpen => 2,
        });
    }

    pub(super) fn transition(&self, Transition { from, to, .. }: Transition) {
        self.state(to);
        let counter = match to {
            State::Closed => &self.to_closed,
            State::Open => &self.to_open,
            State::HalfOpen => &self.to_half_open,
            State::ForcedOpen => &self.to_forced_open,
            State::Disabled => &self.to_disabled,
            State::MetricsOnly if from == to => &self.would_open,
            State::MetricsOnly => &self.to_metrics_only,
        };
        counter.increment(1);
    }

    /// The rates are not a number below `enough` calls.
    pub(super) fn window(&self, counts: Counts, enough: u32) {
        let rate = |part| if counts.total >= enough { counts.rate(part) } else { f64::NAN };
        self.failure_ratio.set(rate(counts.failed));
        self.slow_ratio.set(rate(counts.slow));
        self.window_calls.set(counts.total);
    }

    pub(super) fn call(&self, verdict: Verdict, slow: bool) {
        let counter = match (verdict, slow) {
            (Verdict::Success, false) => &self.success,
            (Verdict::Success, true) => &self.slow_success,
            (Verdict::Failure, false) => &self.failure,
            (Verdict::Failure, true) => &self.slow_failure,
            (Verdict::Throttled | Verdict::Neutral, _) => &self.neutral,
            (Verdict::Cancelled, _) => &self.cancelled,
        };
        counter.increment(1);
    }

    pub(super) fn stale(&self) {
        self.stale.increment(1);
    }

    pub(super) fn rejected(&self) {
        self.rejected.increment(1);
    }
}

//! A balanced call at one endpoint, from the pick to the last byte of its response.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::node::BalancedEndpoint;
use palisade_resilience::{
    circuit_breaker::{CallOutcome, Classification, Permit, RecordOutcome},
    time_limit::TimeLimit,
};

/// Counts as in flight until it is dropped, and reports its outcome to the endpoint's load and
/// breaker.
#[derive(Debug)]
pub(super) struct Call {
    target: &'static str,
    node: Arc<BalancedEndpoint>,
    permit: Option<Permit>,
    started: Instant,
    deadline: Option<TimeLimit>,
    /// Whether the latency was recorded. Load measures the time to the response headers; the length
    /// of the body is irrelevant.
    latency_recorded: bool,
}

impl Call {
    pub(super) fn start(
        target: &'static str,
        node: Arc<BalancedEndpoint>,
        permit: Option<Permit>,
        started: Instant,
        deadline: Option<TimeLimit>,
    ) -> Self {
        node.load().increment_in_flight();
        Self { target, node, permit, started, deadline, latency_recorded: false }
    }

    /// Returns whether an expiry of the time says nothing about the endpoint.
    fn is_limited_by_caller(&self) -> bool {
        self.deadline.is_some_and(|limit| !limit.is_evidence(self.started))
    }

    fn record_latency(&mut self, finding: Classification, now: Instant) {
        let (load, latency) = (self.node.load(), now.saturating_duration_since(self.started));
        match finding {
            Classification::Outcome(CallOutcome::Success) if self.latency_recorded => {}
            Classification::Outcome(CallOutcome::Success) => load.observe_latency(latency, now),
            Classification::TimedOut | Classification::Outcome(CallOutcome::Cancelled) => load.observe_lower_bound(latency, now),
            // The failed connection attempt itself was already recorded. A time that the caller
            // chose is no latency of the endpoint.
            Classification::ConnectBackoff | Classification::NoEvidence => {}
            // Neutral and throttled outcomes do not blame the endpoint, but another endpoint is the
            // better choice.
            Classification::Outcome(CallOutcome::Failure | CallOutcome::Throttled | CallOutcome::Neutral) => {
                load.observe_failure(latency, now);
            }
        }
        self.latency_recorded = true;
    }
}

impl RecordOutcome for Call {
    fn target(&self) -> &'static str {
        self.target
    }

    fn headers_received(mut self, now: Instant) -> Self {
        self.record_latency(CallOutcome::Success.into(), now);
        self.permit = self.permit.take().map(|permit| permit.headers_received(now));
        self
    }

    fn undeclared_headers_received(mut self, now: Instant) -> Option<Self> {
        self.record_latency(CallOutcome::Success.into(), now);
        self.deadline = None;
        self.permit = self.permit.take().and_then(|permit| permit.undeclared_headers_received(now));
        Some(self)
    }

    fn report(mut self, finding: Classification, hint: Option<Duration>, now: Instant) {
        // The attempt timeout marks its rejections only outside of the balancer.
        let chosen_by_caller = finding == Classification::TimedOut && self.is_limited_by_caller();
        let finding = if chosen_by_caller { Classification::NoEvidence } else { finding };
        self.record_latency(finding, now);
        let Some(permit) = self.permit.take() else { return };
        // All calls that wait for one connection fail together. They count as one failure;
        // otherwise five of them would open the breaker.
        let finding = if finding == Classification::ConnectBackoff { CallOutcome::Neutral.into() } else { finding };
        permit.report(finding, hint, now);
    }
}

impl Drop for Call {
    /// Records the elapsed time as a lower bound for a call dropped before its response headers, or
    /// dropped late (after its deadline).
    fn drop(&mut self) {
        let now = Instant::now();
        let is_past_deadline = self.deadline.is_some_and(|limit| limit.has_passed(now));
        let is_evidence = !(is_past_deadline && self.is_limited_by_caller());
        if is_evidence && (!self.latency_recorded || (is_past_deadline && self.permit.is_some())) {
            self.node.load().observe_lower_bound(now.saturating_duration_since(self.started), now);
        }
        self.node.load().decrement_in_flight();
    }
}

#[cfg(test)]
mod tests;

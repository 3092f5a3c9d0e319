//! One call at one endpoint, from the choice to its last byte.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::node::Node;
use crate::circuit_breaker::{Finding, Permit, Settle, Verdict};

/// Is in flight until it is dropped, and then tells the endpoint's load and breaker how it went.
#[derive(Debug)]
pub(super) struct Call {
    target: &'static str,
    node: Arc<Node>,
    permit: Option<Permit>,
    started: Instant,
    deadline: Option<Instant>,
    /// The load knows how long the answer took to begin. How long it then goes on is its own business.
    measured: bool,
}

impl Call {
    pub(super) fn start(
        target: &'static str,
        node: Arc<Node>,
        permit: Option<Permit>,
        started: Instant,
        deadline: Option<Instant>,
    ) -> Self {
        node.load().enter();
        Self { target, node, permit, started, deadline, measured: false }
    }

    fn measure(&mut self, finding: Finding, now: Instant) {
        let (load, delay) = (self.node.load(), now.saturating_duration_since(self.started));
        match finding {
            Finding::Verdict(Verdict::Success) if self.measured => {}
            Finding::Verdict(Verdict::Success) => load.answered(delay, now),
            Finding::TimedOut | Finding::Verdict(Verdict::Cancelled) => load.took_at_least(delay, now),
            // The failure itself was measured when it happened.
            Finding::NotTried => {}
            // What is not its fault, or means only us, is still better done elsewhere.
            Finding::Verdict(Verdict::Failure | Verdict::Throttled | Verdict::Neutral) => load.failed(delay, now),
        }
        self.measured = true;
    }
}

impl Settle for Call {
    fn target(&self) -> &'static str {
        self.target
    }

    fn begun(mut self, now: Instant) -> Self {
        self.measure(Verdict::Success.into(), now);
        self.permit = self.permit.take().map(|permit| permit.begun(now));
        self
    }

    fn settle(mut self, finding: Finding, hint: Option<Duration>, now: Instant) {
        self.measure(finding, now);
        let Some(permit) = self.permit.take() else { return };
        // All the calls that waited for one connection fail with it. That is one failure, and five in a row would open the breaker.
        let finding = if finding == Finding::NotTried { Verdict::Neutral.into() } else { finding };
        permit.settle(finding, hint, now);
    }
}

impl Drop for Call {
    /// Nobody waited for the rest: what was to be told in time and was not took at least so long.
    fn drop(&mut self) {
        let now = Instant::now();
        let late = self.deadline.is_some_and(|deadline| now >= deadline);
        if !self.measured || (late && self.permit.is_some()) {
            self.node.load().took_at_least(now.saturating_duration_since(self.started), now);
        }
        self.node.load().leave();
    }
}

#[cfg(test)]
mod tests;

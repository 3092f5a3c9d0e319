//! Previous endpoints of a call: excludes tried endpoints from its retries.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{node::BalancedEndpoint, p2c::Picked};

/// Endpoints that a call has tried, shared by all its attempts through the request extensions. A
/// raised latency is not enough to avoid them: it decays, and all working endpoints may be busier.
#[derive(Debug, Clone, Default)]
pub struct PreviousEndpoints(Arc<Mutex<Vec<Arc<BalancedEndpoint>>>>);

impl PreviousEndpoints {
    /// Picks an endpoint and appends it to the list.
    pub(super) fn pick<'a>(&self, choose: impl FnOnce(&[Arc<BalancedEndpoint>]) -> Picked<'a>) -> Picked<'a> {
        let mut previous = self.0.lock();
        let picked = choose(&previous);
        previous.push(picked.node.clone());
        picked
    }
}

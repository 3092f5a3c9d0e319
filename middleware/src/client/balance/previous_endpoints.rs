//! Where the attempts of one call went.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{node::BalancedEndpoint, p2c::Picked};

/// The endpoints that a call has tried; in the extensions of its request, where all its attempts share it. It is not enough that a failure
/// makes an endpoint look slow: that is forgotten, and the endpoints that work may all be busy.
#[derive(Debug, Clone, Default)]
pub(in crate::client) struct PreviousEndpoints(Arc<Mutex<Vec<Arc<BalancedEndpoint>>>>);

impl PreviousEndpoints {
    /// Remembers what `choose` makes of what was tried so far.
    pub(super) fn pick<'a>(&self, choose: impl FnOnce(&[Arc<BalancedEndpoint>]) -> Picked<'a>) -> Picked<'a> {
        let mut previous = self.0.lock();
        let picked = choose(&previous);
        previous.push(picked.node.clone());
        picked
    }
}

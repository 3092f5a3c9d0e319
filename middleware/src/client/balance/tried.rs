//! Where the attempts of one call went.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{node::Node, pick::Choice};

/// The endpoints that a call has tried; in the extensions of its request, where all its attempts share it. It is not enough that a failure
/// makes an endpoint look slow: that is forgotten, and the endpoints that work may all be busy.
#[derive(Debug, Clone, Default)]
pub(in crate::client) struct Tried(Arc<Mutex<Vec<Arc<Node>>>>);

impl Tried {
    /// Remembers what `choose` makes of what was tried so far.
    pub(super) fn choose<'a>(&self, choose: impl FnOnce(&[Arc<Node>]) -> Choice<'a>) -> Choice<'a> {
        let mut tried = self.0.lock();
        let choice = choose(&tried);
        tried.push(choice.node.clone());
        choice
    }
}

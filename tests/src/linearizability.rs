//! Linearizability checker: an object is linearizable if each call appears to take effect at one
//! moment between its start and its reply (Herlihy and Wing, 1990).
//!
//! Concurrent clients record their calls in a [`History`]; [`check`] searches for an order of the
//! calls that a sequential [`Model`] explains. Linearizability is local: a history of one object is
//! checked alone, which keeps it short.
//!
//! Crates that were considered: `stateright` searches without memoization and has no budget,
//! `todc-utils` has no calls without a reply. Both need exponential time, or cannot express a
//! killed server.

mod history;
mod search;

use std::{fmt::Debug, hash::Hash};

pub use self::{
    history::{History, Operation, Pending},
    search::{NotLinearizable, check},
};

/// Sequential specification of one object.
pub trait Model {
    /// State of the object.
    type State: Clone + Default + Eq + Hash + Debug;
    /// Call with its arguments.
    type Call: Clone + Debug;
    /// Reply that proves whether the call took effect.
    type Reply: Clone + Debug;

    /// Returns the state after `call`, or `None` if a call in this state has another reply. Without
    /// a reply any outcome is possible, so that the result is always `Some`.
    fn step(state: &Self::State, call: &Self::Call, reply: Option<&Self::Reply>) -> Option<Self::State>;
}

#[cfg(test)]
mod tests;

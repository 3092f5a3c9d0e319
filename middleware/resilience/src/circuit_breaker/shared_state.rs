//! Lock-free fast path of a breaker: one atomic load while all calls are admitted, a lock
//! otherwise.

use tokio::time::Instant;

use super::{
    event::Transition,
    state::{CallNotPermitted, StateMachine},
};
use crate::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// The state machine, and its state packed into an atomic for readers without the lock.
#[derive(Debug)]
pub(super) struct SharedState {
    /// Copy of the state: the epoch shifted left by one; the lowest bit is set while all calls are
    /// admitted.
    packed_state: AtomicU64,
    machine: Mutex<StateMachine>,
}

impl SharedState {
    pub(super) fn new(machine: StateMachine) -> Self {
        Self { packed_state: AtomicU64::new(packed_state(&machine)), machine: Mutex::new(machine) }
    }

    /// Admits a call and returns its epoch, or rejects it.
    pub(super) fn acquire(&self, now: Instant, announce: impl FnMut(Transition)) -> Result<u64, CallNotPermitted> {
        match self.closed_epoch() {
            Some(epoch) => Ok(epoch),
            None => self.with(|machine| machine.acquire(now), announce),
        }
    }

    /// Returns the epoch while all calls are admitted.
    pub(super) fn closed_epoch(&self) -> Option<u64> {
        let packed = self.packed_state.load(Ordering::Acquire);
        (packed & 1 == 1).then_some(packed >> 1)
    }

    /// Runs an operation under the lock and updates the packed state; every change goes through
    /// here. `announce` runs under the lock, so that transitions are announced in order.
    pub(super) fn with<T>(&self, operate: impl FnOnce(&mut StateMachine) -> T, mut announce: impl FnMut(Transition)) -> T {
        let mut machine = self.machine.lock();
        let result = operate(&mut machine);
        self.packed_state.store(packed_state(&machine), Ordering::Release);
        while let Some(transition) = machine.take_transition() {
            announce(transition);
        }
        result
    }
}

fn packed_state(machine: &StateMachine) -> u64 {
    (machine.epoch() << 1) | u64::from(machine.state().admits_all())
}

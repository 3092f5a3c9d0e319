//! The way into a breaker: one atomic load while all calls are let through, a lock otherwise.

use tokio::time::Instant;

use super::{
    state::{StateMachine, CallNotPermitted},
    event::{State, Transition},
};
use crate::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// The machine, and what calls may know of it without taking its lock.
#[derive(Debug)]
pub(super) struct SharedState {
    /// The epoch, shifted by one; the lowest bit is set while all calls are let through. A copy of what `machine` says.
    packed_state: AtomicU64,
    machine: Mutex<StateMachine>,
}

impl SharedState {
    pub(super) fn new(machine: StateMachine) -> Self {
        Self { packed_state: AtomicU64::new(packed_state(&machine)), machine: Mutex::new(machine) }
    }

    /// Lets a call through, in the returned epoch, or not.
    pub(super) fn acquire(&self, now: Instant, announce: impl FnOnce(Transition)) -> Result<u64, CallNotPermitted> {
        match self.closed_epoch() {
            Some(epoch) => Ok(epoch),
            None => self.with(|machine| machine.acquire(now), announce),
        }
    }

    /// The epoch while all calls are let through.
    pub(super) fn closed_epoch(&self) -> Option<u64> {
        let packed = self.packed_state.load(Ordering::Acquire);
        (packed & 1 == 1).then_some(packed >> 1)
    }

    /// Every change goes through here, so that the word follows it. `announce` runs under the lock: the last state told is the last
    /// one entered.
    pub(super) fn with<T>(&self, operate: impl FnOnce(&mut StateMachine) -> T, announce: impl FnOnce(Transition)) -> T {
        let mut machine = self.machine.lock();
        let result = operate(&mut machine);
        self.packed_state.store(packed_state(&machine), Ordering::Release);
        if let Some(transition) = machine.take_transition() {
            announce(transition);
        }
        result
    }
}

fn packed_state(machine: &StateMachine) -> u64 {
    let admits_all = matches!(machine.state(), State::Closed | State::Disabled | State::MetricsOnly);
    (machine.epoch() << 1) | u64::from(admits_all)
}

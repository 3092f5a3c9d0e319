//! The way into a breaker: one atomic load while all calls are let through, a lock otherwise.

use tokio::time::Instant;

use super::{
    state::{Machine, Refused},
    transition::{State, Transition},
};
use crate::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// The machine, and what calls may know of it without taking its lock.
#[derive(Debug)]
pub(super) struct Gate {
    /// The epoch, shifted by one; the lowest bit is set while all calls are let through. A copy of what `machine` says.
    word: AtomicU64,
    machine: Mutex<Machine>,
}

impl Gate {
    pub(super) fn new(machine: Machine) -> Self {
        Self { word: AtomicU64::new(word(&machine)), machine: Mutex::new(machine) }
    }

    /// Lets a call through, in the returned epoch, or not.
    pub(super) fn acquire(&self, now: Instant, announce: impl FnOnce(Transition)) -> Result<u64, Refused> {
        match self.epoch_of_all() {
            Some(epoch) => Ok(epoch),
            None => self.with(|machine| machine.acquire(now), announce),
        }
    }

    /// The epoch while all calls are let through.
    pub(super) fn epoch_of_all(&self) -> Option<u64> {
        let word = self.word.load(Ordering::Acquire);
        (word & 1 == 1).then_some(word >> 1)
    }

    /// Every change goes through here, so that the word follows it. `announce` runs under the lock: the last state told is the last
    /// one entered.
    pub(super) fn with<T>(&self, operate: impl FnOnce(&mut Machine) -> T, announce: impl FnOnce(Transition)) -> T {
        let mut machine = self.machine.lock();
        let result = operate(&mut machine);
        self.word.store(word(&machine), Ordering::Release);
        if let Some(transition) = machine.take_transition() {
            announce(transition);
        }
        result
    }
}

fn word(machine: &Machine) -> u64 {
    let open_to_all = matches!(machine.state(), State::Closed | State::Disabled | State::MetricsOnly);
    (machine.epoch() << 1) | u64::from(open_to_all)
}

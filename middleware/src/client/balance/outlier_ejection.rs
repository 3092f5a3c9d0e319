//! How many endpoints of a target may be left out at once. If more than a share of them fails, the fault is likely not theirs, and those
//! that are left could not carry the load.

use std::sync::Arc;

use crate::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// The endpoints of one target that are left out.
#[derive(Debug)]
pub(super) struct EjectionLimit {
    slots: Mutex<SlotCount>,
    enforced: metrics::Counter,
    unenforced: metrics::Counter,
}

#[derive(Debug)]
struct SlotCount {
    used: usize,
    limit: usize,
}

impl EjectionLimit {
    /// None may be left out yet.
    pub(super) fn new(target: &'static str) -> Arc<Self> {
        let count = |enforced: &'static str| metrics::counter!("palisade.breaker.ejections", "target" => target, "enforced" => enforced);
        let places = Mutex::new(SlotCount { used: 0, limit: 0 });
        Arc::new(Self { slots: places, enforced: count("true"), unenforced: count("false") })
    }

    /// From now on at most `limit`; who has a place beyond that, of `seats`, is taken in again.
    pub(super) fn set_limit<'a>(&self, limit: usize, slots: impl Iterator<Item = &'a EjectionSlot>) {
        let mut places = self.slots.lock();
        places.limit = limit;
        for seat in slots {
            if places.used > limit && seat.ejected.swap(false, Ordering::AcqRel) {
                places.used -= 1;
            }
        }
    }
}

/// At least one, else no more than `share` of `endpoints`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a 32-bit number")]
pub(super) fn max_ejected_count(share: f64, endpoints: usize) -> usize {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    ((share * f64::from(endpoints)).floor() as usize).max(1)
}

/// One endpoint's part in it.
#[derive(Debug)]
pub(super) struct EjectionSlot {
    ejections: Arc<EjectionLimit>,
    ejected: AtomicBool,
}

impl EjectionSlot {
    pub(super) fn new(ejections: Arc<EjectionLimit>) -> Self {
        Self { ejections, ejected: AtomicBool::new(false) }
    }

    #[cfg(test)]
    pub(super) fn ejections(&self) -> &EjectionLimit {
        &self.ejections
    }

    /// Whether calls should go elsewhere.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    /// Its breaker opened: out it goes, if there is room.
    pub(super) fn breaker_opened(&self) {
        let mut places = self.ejections.slots.lock();
        if self.is_ejected() {
            self.ejections.enforced.increment(1);
        } else if places.used < places.limit {
            places.used += 1;
            self.ejected.store(true, Ordering::Release);
            self.ejections.enforced.increment(1);
        } else {
            self.ejections.unenforced.increment(1);
        }
    }

    /// Its breaker lets all through, or is no more.
    pub(super) fn breaker_closed(&self) {
        let mut places = self.ejections.slots.lock();
        if self.ejected.swap(false, Ordering::AcqRel) {
            places.used -= 1;
        }
    }
}

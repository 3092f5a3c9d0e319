//! Outlier ejection: limits the number of ejected endpoints per target. When more than a share of
//! them fails, the cause is probably not the endpoints, and the remaining ones could not carry the
//! load.

use std::sync::Arc;

use crate::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Ejected endpoints of one target and their maximum number.
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
    /// Starts with a limit of 0.
    pub(super) fn new(target: &'static str) -> Arc<Self> {
        let count = |enforced: &'static str| palisade_resilience::counter!("palisade.outlier.ejections", "target" => target, "enforced" => enforced);
        let places = Mutex::new(SlotCount { used: 0, limit: 0 });
        Arc::new(Self { slots: places, enforced: count("true"), unenforced: count("false") })
    }

    /// Sets the maximum to `limit` and readmits ejected endpoints of `slots` above it.
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

/// Returns `share` of `endpoints`, rounded down, at least 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "fraction of a 32-bit number")]
pub(super) fn max_ejected_count(share: f64, endpoints: usize) -> usize {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    ((share * f64::from(endpoints)).floor() as usize).max(1)
}

/// Ejection state of one endpoint.
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

    /// Returns `true` while the endpoint is ejected.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    /// Ejects the endpoint after its breaker opened, if the limit allows it.
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

    /// Readmits the endpoint after its breaker closed or was removed.
    pub(super) fn breaker_closed(&self) {
        let mut places = self.ejections.slots.lock();
        if self.ejected.swap(false, Ordering::AcqRel) {
            places.used -= 1;
        }
    }
}

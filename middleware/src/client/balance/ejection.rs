//! How many endpoints of a target may be left out at once. If more than a share of them fails, the fault is likely not theirs, and those
//! that are left could not carry the load.

use std::sync::Arc;

use crate::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// The endpoints of one target that are left out.
#[derive(Debug)]
pub(super) struct Ejections {
    places: Mutex<Places>,
    enforced: metrics::Counter,
    unenforced: metrics::Counter,
}

#[derive(Debug)]
struct Places {
    taken: usize,
    limit: usize,
}

impl Ejections {
    /// None may be left out yet.
    pub(super) fn new(target: &'static str) -> Arc<Self> {
        let count = |enforced: &'static str| metrics::counter!("palisade.breaker.ejections", "target" => target, "enforced" => enforced);
        let places = Mutex::new(Places { taken: 0, limit: 0 });
        Arc::new(Self { places, enforced: count("true"), unenforced: count("false") })
    }

    /// From now on at most `limit`; who has a place beyond that, of `seats`, is taken in again.
    pub(super) fn limit<'a>(&self, limit: usize, seats: impl Iterator<Item = &'a Seat>) {
        let mut places = self.places.lock();
        places.limit = limit;
        for seat in seats {
            if places.taken > limit && seat.out.swap(false, Ordering::AcqRel) {
                places.taken -= 1;
            }
        }
    }
}

/// At least one, else no more than `share` of `endpoints`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a 32-bit number")]
pub(super) fn most(share: f64, endpoints: usize) -> usize {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    ((share * f64::from(endpoints)).floor() as usize).max(1)
}

/// One endpoint's part in it.
#[derive(Debug)]
pub(super) struct Seat {
    ejections: Arc<Ejections>,
    out: AtomicBool,
}

impl Seat {
    pub(super) fn new(ejections: Arc<Ejections>) -> Self {
        Self { ejections, out: AtomicBool::new(false) }
    }

    #[cfg(test)]
    pub(super) fn ejections(&self) -> &Ejections {
        &self.ejections
    }

    /// Whether calls should go elsewhere.
    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Acquire)
    }

    /// Its breaker opened: out it goes, if there is room.
    pub(super) fn opened(&self) {
        let mut places = self.ejections.places.lock();
        if self.is_out() {
            self.ejections.enforced.increment(1);
        } else if places.taken < places.limit {
            places.taken += 1;
            self.out.store(true, Ordering::Release);
            self.ejections.enforced.increment(1);
        } else {
            self.ejections.unenforced.increment(1);
        }
    }

    /// Its breaker lets all through, or is no more.
    pub(super) fn closed(&self) {
        let mut places = self.ejections.places.lock();
        if self.out.swap(false, Ordering::AcqRel) {
            places.taken -= 1;
        }
    }
}

//! Fairly shared limit with its metrics, and its permit.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    caller::CallerKey,
    fair_share::{FairShare, NoPermit},
    metrics::register_observable_sum,
};

/// Limit shared fairly between callers, with the gauges `palisade.concurrency.limit` and
/// `palisade.concurrency.in_use`.
#[derive(Debug)]
pub(crate) struct SharedLimit {
    name: &'static str,
    limit: usize,
    shares: Mutex<FairShare>,
}

/// Permit of a shared limit, returned when dropped.
#[derive(Debug)]
pub struct SharedPermit {
    limit: Arc<SharedLimit>,
    caller: CallerKey,
}

impl SharedLimit {
    /// Allows `limit` permits at once. `name` is the label of its gauges.
    pub(crate) fn new(name: &'static str, limit: u32) -> Arc<Self> {
        crate::gauge!("palisade.concurrency.limit", "limiter" => name).set(limit);
        let in_use = crate::gauge!("palisade.concurrency.in_use", "limiter" => name);
        let shared = Arc::new(Self { name, limit: limit as usize, shares: Mutex::default() });
        register_observable_sum(&shared, in_use, |shared| u32::try_from(shared.shares.lock().in_use()).unwrap_or(u32::MAX));
        shared
    }

    /// Returns the label of the gauges.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Takes a permit for `caller`.
    pub(crate) fn try_acquire(self: &Arc<Self>, caller: CallerKey) -> Result<SharedPermit, NoPermit> {
        self.shares.lock().try_acquire(caller, self.limit)?;
        Ok(SharedPermit { limit: self.clone(), caller })
    }
}

impl Drop for SharedPermit {
    fn drop(&mut self) {
        self.limit.shares.lock().release(self.caller);
    }
}

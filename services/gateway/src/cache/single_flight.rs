//! Single flight: one load per key at a time, shared by all concurrent callers.
//!
//! A load continues when its callers are cancelled. After an invalidation, new callers do not join
//! a load that is in flight.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::{Key, store::Entry};

/// Result of a load.
pub(super) type LoadResult = Result<Loaded, Status>;

/// Successful load, shared by all waiting callers.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) entry: Arc<Entry>,
    /// Whether the entry was stored in the cache.
    pub(super) is_stored: bool,
    /// Whether the entry came from Redis instead of products.
    pub(super) is_from_redis: bool,
}

/// Loads in flight, by key.
#[derive(Debug, Default)]
pub(super) struct SingleFlight(Mutex<HashMap<Key, InFlightLoad>>);

/// One load in flight.
#[derive(Debug, Clone)]
pub(super) struct InFlightLoad {
    /// Start of the load.
    pub(super) started: Instant,
    outcome: watch::Receiver<Option<LoadResult>>,
}

/// Obligation to run a load. Dropping it without a result fails the waiting callers instead of
/// blocking them.
#[derive(Debug)]
pub(super) struct LoadGuard {
    loads: Arc<SingleFlight>,
    key: Key,
    outcome: watch::Sender<Option<LoadResult>>,
}

impl SingleFlight {
    /// Joins the load of `key` in flight, or starts one that the caller must run.
    ///
    /// With `force_new`, a load that started earlier is not joined. If one is in flight, the new
    /// load serves only this caller and is not stored; otherwise bypassing clients could prevent
    /// caching altogether.
    pub(super) fn join(self: &Arc<Self>, key: &Key, force_new: bool) -> (InFlightLoad, Option<LoadGuard>) {
        let mut loads = self.0.lock();
        let existing = loads.get(key);
        if let Some(load) = existing.filter(|_| !force_new) {
            return (load.clone(), None);
        }
        let (sender, receiver) = watch::channel(None);
        let load = InFlightLoad { started: Instant::now(), outcome: receiver };
        if existing.is_none() {
            loads.insert(key.clone(), load.clone());
        }
        (load, Some(LoadGuard { loads: self.clone(), key: key.clone(), outcome: sender }))
    }

    /// Detaches the loads in flight of the matching keys: only the callers that already wait
    /// receive their results. `mark` invalidates the stored entries under the same lock.
    pub(super) fn invalidate(&self, matches: impl Fn(&Key) -> bool, mark: impl FnOnce()) {
        let mut loads = self.0.lock();
        loads.retain(|key, _| !matches(key));
        mark();
    }
}

impl InFlightLoad {
    /// Waits for the result.
    pub(super) async fn outcome(&mut self) -> LoadResult {
        let aborted = || Err(Status::internal("cache load ended without a result"));
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(aborted),
            Err(_) => aborted(),
        }
    }
}

impl LoadGuard {
    /// Returns the key to load.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Completes the load. `finish` receives whether the load is still current and returns the
    /// result for the waiting callers; it runs under the lock, so no invalidation can intervene.
    pub(super) fn complete(self, finish: impl FnOnce(&Key, bool) -> LoadResult) {
        let outcome = {
            let mut loads = self.loads.0.lock();
            let is_current = self.remove(&mut loads);
            finish(&self.key, is_current)
        };
        self.outcome.send_replace(Some(outcome));
    }

    /// Removes this load unless another load has replaced it. Returns whether it was current.
    fn remove(&self, loads: &mut HashMap<Key, InFlightLoad>) -> bool {
        let is_current = loads.get(&self.key).is_some_and(|load| load.outcome.same_channel(&self.outcome.subscribe()));
        if is_current {
            loads.remove(&self.key);
        }
        is_current
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.remove(&mut self.loads.0.lock());
    }
}

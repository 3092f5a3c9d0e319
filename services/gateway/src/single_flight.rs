//! Single flight: one load per key at a time, shared by all concurrent callers.
//!
//! A load continues when its callers are cancelled. After an invalidation, new callers do not join
//! a load that is in flight.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

/// Loads in flight, by key. `V` is the result of a load.
#[derive(Debug)]
pub(crate) struct SingleFlight<K, V>(Mutex<HashMap<K, InFlightLoad<V>>>);

/// One load in flight.
#[derive(Debug, Clone)]
pub(crate) struct InFlightLoad<V> {
    /// Start of the load.
    pub(crate) started: Instant,
    result: watch::Receiver<Option<V>>,
}

/// Obligation to run a load. Dropping it without a result releases the waiting callers.
#[derive(Debug)]
pub(crate) struct LoadGuard<K: Eq + Hash, V> {
    loads: Arc<SingleFlight<K, V>>,
    key: K,
    result: watch::Sender<Option<V>>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// Joins the load of `key` in flight, or starts one that the caller must run.
    ///
    /// With `force_new`, a load in flight is not joined. The new load then serves only this caller
    /// and never becomes current; otherwise such callers could displace every other load.
    pub(crate) fn join(self: &Arc<Self>, key: &K, force_new: bool) -> (InFlightLoad<V>, Option<LoadGuard<K, V>>) {
        let mut loads = self.0.lock();
        let existing = loads.get(key);
        if let Some(load) = existing.filter(|_| !force_new) {
            return (load.clone(), None);
        }
        let (sender, receiver) = watch::channel(None);
        let load = InFlightLoad { started: Instant::now(), result: receiver };
        if existing.is_none() {
            loads.insert(key.clone(), load.clone());
        }
        (load, Some(LoadGuard { loads: self.clone(), key: key.clone(), result: sender }))
    }

    /// Detaches the loads in flight of the matching keys: only the callers that already wait
    /// receive their results. `mark` invalidates the stored values under the same lock.
    pub(crate) fn invalidate(&self, matches: impl Fn(&K) -> bool, mark: impl FnOnce()) {
        let mut loads = self.0.lock();
        loads.retain(|key, _| !matches(key));
        mark();
    }
}

impl<V: Clone> InFlightLoad<V> {
    /// Waits for the result. Returns `None` if the load ended without one.
    pub(crate) async fn result(&mut self) -> Option<V> {
        self.result.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl<K: Eq + Hash, V> LoadGuard<K, V> {
    /// Returns the key to load.
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Completes the load. `finish` receives whether the load is still current and returns the
    /// result for the waiting callers. It runs under the lock, so no invalidation can intervene.
    pub(crate) fn complete(self, finish: impl FnOnce(&K, bool) -> V) {
        let result = {
            let mut loads = self.loads.0.lock();
            let is_current = self.remove(&mut loads);
            finish(&self.key, is_current)
        };
        self.result.send_replace(Some(result));
    }

    /// Removes this load unless another load has replaced it. Returns whether it was current.
    fn remove(&self, loads: &mut HashMap<K, InFlightLoad<V>>) -> bool {
        let is_current = loads.get(&self.key).is_some_and(|load| load.result.same_channel(&self.result.subscribe()));
        if is_current {
            loads.remove(&self.key);
        }
        is_current
    }
}

impl<K: Eq + Hash, V> Drop for LoadGuard<K, V> {
    fn drop(&mut self) {
        self.remove(&mut self.loads.0.lock());
    }
}

//! One load at a time for each key: whoever else wants the same waits for it. A load goes on when its callers give up, and what is outdated
//! while it is under way is not joined any more.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::{Key, store::Entry};

/// What a load comes to.
pub(super) type LoadResult = Result<Loaded, Status>;

/// An answer for all who waited for it.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) entry: Arc<Entry>,
    /// Whoever asks next will find it.
    pub(super) is_stored: bool,
    /// It is not from products but from another replica.
    pub(super) is_from_redis: bool,
}

/// The loads under way.
#[derive(Debug, Default)]
pub(super) struct SingleFlight(Mutex<HashMap<Key, InFlightLoad>>);

/// A load under way.
#[derive(Debug, Clone)]
pub(super) struct InFlightLoad {
    /// When it began.
    pub(super) started: Instant,
    outcome: watch::Receiver<Option<LoadResult>>,
}

/// Who carries a load out. Dropped without a word it leaves nobody waiting.
#[derive(Debug)]
pub(super) struct LoadGuard {
    loads: Arc<SingleFlight>,
    key: Key,
    outcome: watch::Sender<Option<LoadResult>>,
}

impl SingleFlight {
    /// The load of `key` that is under way; or a new one, which the caller has to carry out. `alone`: not one that began before now; a new one beside it
    /// is for the caller only and not kept, or whoever wants nothing kept could keep anything from being so.
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

    /// Whatever is under way for these keys is for those alone who wait for it already. `mark` outdates what was kept, in the same step.
    pub(super) fn invalidate(&self, matches: impl Fn(&Key) -> bool, mark: impl FnOnce()) {
        let mut loads = self.0.lock();
        loads.retain(|key, _| !matches(key));
        mark();
    }
}

impl InFlightLoad {
    /// Waits for what it comes to.
    pub(super) async fn outcome(&mut self) -> LoadResult {
        let aborted = || Err(Status::internal("the load of an answer ended without one"));
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(aborted),
            Err(_) => aborted(),
        }
    }
}

impl LoadGuard {
    /// What is loaded.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Ends the load: `settle` is told whether nothing has outdated it, in one step with that, and says what those who wait are given.
    pub(super) fn complete(self, finish: impl FnOnce(&Key, bool) -> LoadResult) {
        let outcome = {
            let mut loads = self.loads.0.lock();
            let is_current = self.remove(&mut loads);
            finish(&self.key, is_current)
        };
        self.outcome.send_replace(Some(outcome));
    }

    /// Takes this load away, if no other has its place by now.
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

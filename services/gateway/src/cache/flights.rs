//! One load at a time for each key: whoever else wants the same waits for it. A load goes on when its callers give up, and what is outdated
//! while it is under way is not joined any more.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::{Key, store::Entry};

/// What a load comes to.
pub(super) type Outcome = Result<Loaded, Status>;

/// An answer for all who waited for it.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) entry: Arc<Entry>,
    /// Whoever asks next will find it.
    pub(super) is_kept: bool,
    /// It is not from products but from another replica.
    pub(super) is_shared: bool,
}

/// The loads under way.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Flight>>);

/// A load under way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// When it began.
    pub(super) started: Instant,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// Who carries a load out. Dropped without a word it leaves nobody waiting.
#[derive(Debug)]
pub(super) struct Leader {
    flights: Arc<Flights>,
    key: Key,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flights {
    /// The load of `key` that is under way; or a new one, which the caller has to carry out. `alone`: not one that began before now; a new one beside it
    /// is for the caller only and not kept, or whoever wants nothing kept could keep anything from being so.
    pub(super) fn join(self: &Arc<Self>, key: &Key, alone: bool) -> (Flight, Option<Leader>) {
        let mut flights = self.0.lock();
        let under_way = flights.get(key);
        if let Some(flight) = under_way.filter(|_| !alone) {
            return (flight.clone(), None);
        }
        let (sender, receiver) = watch::channel(None);
        let flight = Flight { started: Instant::now(), outcome: receiver };
        if under_way.is_none() {
            flights.insert(key.clone(), flight.clone());
        }
        (flight, Some(Leader { flights: self.clone(), key: key.clone(), outcome: sender }))
    }

    /// Whatever is under way for these keys is for those alone who wait for it already. `mark` outdates what was kept, in the same step.
    pub(super) fn outdate(&self, outdated: impl Fn(&Key) -> bool, mark: impl FnOnce()) {
        let mut flights = self.0.lock();
        flights.retain(|key, _| !outdated(key));
        mark();
    }
}

impl Flight {
    /// Waits for what it comes to.
    pub(super) async fn outcome(&mut self) -> Outcome {
        let lost = || Err(Status::internal("the load of an answer ended without one"));
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(lost),
            Err(_) => lost(),
        }
    }
}

impl Leader {
    /// What is loaded.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Ends the load: `settle` is told whether nothing has outdated it, in one step with that, and says what those who wait are given.
    pub(super) fn land(self, settle: impl FnOnce(&Key, bool) -> Outcome) {
        let outcome = {
            let mut flights = self.flights.0.lock();
            let is_current = self.leave(&mut flights);
            settle(&self.key, is_current)
        };
        self.outcome.send_replace(Some(outcome));
    }

    /// Takes this load away, if no other has its place by now.
    fn leave(&self, flights: &mut HashMap<Key, Flight>) -> bool {
        let is_current = flights.get(&self.key).is_some_and(|flight| flight.outcome.same_channel(&self.outcome.subscribe()));
        if is_current {
            flights.remove(&self.key);
        }
        is_current
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.leave(&mut self.flights.0.lock());
    }
}

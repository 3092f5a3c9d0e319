//! Who waits for news of which order, and where the news comes from: a change made here is told at once, one made elsewhere by an
//! event or, at the latest, by a look into the store. Whoever waits is only woken; what he tells he reads from the store.

mod following;

use std::{collections::HashMap, sync::Arc, time::Duration};

use palisade_middleware::jitter;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{order::OrderId, store::Store};

pub use following::{Following, Start};

/// Orders that are asked for with one query.
const ASKED_AT_ONCE: usize = 1_000;
/// How much of the pause is drawn by lot: replicas must not ask in step.
const SPREAD: f64 = 0.2;

/// The orders that somebody watches. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The last version that was heard of.
    orders: Mutex<HashMap<OrderId, watch::Sender<i64>>>,
    /// An event was written here.
    written: Notify,
}

/// One who waits; gone when it is dropped.
#[derive(Debug)]
pub struct Watching {
    watches: Watches,
    id: OrderId,
    version: watch::Receiver<i64>,
}

impl Watches {
    /// Waits for news of `id` from now on.
    pub fn watch(&self, id: OrderId) -> Watching {
        let version = self.0.orders.lock().entry(id).or_insert_with(|| watch::Sender::new(0)).subscribe();
        Watching { watches: self.clone(), id, version }
    }

    /// The order has reached this version.
    pub fn announce(&self, id: OrderId, version: i64) {
        if let Some(sender) = self.0.orders.lock().get(&id) {
            sender.send_if_modified(|known| std::mem::replace(known, version.max(*known)) < version);
        }
    }

    /// This process wrote an event into the outbox.
    pub fn written(&self) {
        self.0.written.notify_one();
    }

    /// Returns when an event was written since the last time, at the latest after `patience`.
    pub async fn until_written(&self, patience: Duration) {
        // Which of the two it was makes no difference.
        let _ = tokio::time::timeout(patience, self.0.written.notified()).await;
    }

    /// How many orders are watched.
    pub fn len(&self) -> usize {
        self.0.orders.lock().len()
    }

    /// Whether nobody watches any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks the store for the versions of all that is watched, `every` so often, until `shutdown`: one query for a thousand orders.
    pub async fn look(self, store: Arc<dyn Store>, every: Duration, shutdown: CancellationToken) {
        let looking = async {
            loop {
                tokio::time::sleep(jitter::around(every, SPREAD, jitter::draw)).await;
                let watched: Vec<OrderId> = self.0.orders.lock().keys().copied().collect();
                for some in watched.chunks(ASKED_AT_ONCE) {
                    match store.versions(some).await {
                        Ok(versions) => versions.into_iter().for_each(|(id, version)| self.announce(id, version)),
                        Err(error) => {
                            tracing::debug!(error = &error as &dyn std::error::Error, "the versions of watched orders cannot be read");
                        }
                    }
                }
            }
        };
        shutdown.run_until_cancelled(looking).await;
    }
}

impl Watching {
    /// Returns when the order is known to be further on than `version`.
    async fn until_after(&mut self, version: i64) {
        // The sender stays as long as anybody waits.
        let _ = self.version.wait_for(|known| *known > version).await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut orders = self.watches.0.orders.lock();
        // This one is still counted.
        if orders.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            orders.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> OrderId {
        uuid::Uuid::from_u128(n).into()
    }

    #[tokio::test]
    async fn news_reaches_all_who_watch_the_order_and_nothing_is_kept_of_the_others() {
        let watches = Watches::default();
        let (mut first, mut second) = (watches.watch(id(1)), watches.watch(id(1)));
        watches.announce(id(2), 7);
        watches.announce(id(1), 2);
        // Late news changes nothing.
        watches.announce(id(1), 1);
        first.until_after(1).await;
        second.until_after(1).await;
        drop(first);
        assert_eq!(watches.len(), 1);
        drop(second);
        assert!(watches.is_empty());
    }
}

//! Who waits for news of which order, and where the news comes from: a change made here is told at once, one made elsewhere by an
//! event or, at the latest, by a look into the store. Whoever waits is only woken; what he tells he reads from the store.

mod stream;

use std::{collections::HashMap, sync::Arc, time::Duration};

use palisade_middleware::jitter;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{order::OrderId, store::Store};

pub use stream::{OrderStatusStream, Start};

/// Orders that are asked for with one query.
const QUERY_CHUNK: usize = 1_000;
/// How much of the pause is drawn by lot: replicas must not ask in step.
const JITTER: f64 = 0.2;

/// The orders that somebody watches. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub struct OrderWatchers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The last version that was heard of.
    orders: Mutex<HashMap<OrderId, watch::Sender<i64>>>,
    /// An event was written here.
    outbox_written: Notify,
}

/// One who waits; gone when it is dropped.
#[derive(Debug)]
pub struct Watcher {
    watchers: OrderWatchers,
    id: OrderId,
    version: watch::Receiver<i64>,
}

impl OrderWatchers {
    /// Waits for news of `id` from now on.
    pub fn watch(&self, id: OrderId) -> Watcher {
        let version = self.0.orders.lock().entry(id).or_insert_with(|| watch::Sender::new(0)).subscribe();
        Watcher { watchers: self.clone(), id, version }
    }

    /// The order has reached this version.
    pub fn notify_version(&self, id: OrderId, version: i64) {
        if let Some(sender) = self.0.orders.lock().get(&id) {
            sender.send_if_modified(|known| std::mem::replace(known, version.max(*known)) < version);
        }
    }

    /// This process wrote an event into the outbox.
    pub fn notify_outbox(&self) {
        self.0.outbox_written.notify_one();
    }

    /// Returns when an event was written since the last time, at the latest after `patience`.
    pub async fn wait_for_outbox(&self, timeout: Duration) {
        // Which of the two it was makes no difference.
        let _ = tokio::time::timeout(timeout, self.0.outbox_written.notified()).await;
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
    pub async fn poll_versions(self, store: Arc<dyn Store>, interval: Duration, shutdown: CancellationToken) {
        let polling = async {
            loop {
                tokio::time::sleep(jitter::jittered(interval, JITTER, jitter::random_unit)).await;
                let watched: Vec<OrderId> = self.0.orders.lock().keys().copied().collect();
                for chunk in watched.chunks(QUERY_CHUNK) {
                    match store.versions(chunk).await {
                        Ok(versions) => versions.into_iter().for_each(|(id, version)| self.notify_version(id, version)),
                        Err(error) => {
                            tracing::debug!(error = &error as &dyn std::error::Error, "the versions of watched orders cannot be read");
                        }
                    }
                }
            }
        };
        shutdown.run_until_cancelled(polling).await;
    }
}

impl Watcher {
    /// Returns when the order is known to be further on than `version`.
    async fn wait_until_after(&mut self, version: i64) {
        // The sender stays as long as anybody waits.
        let _ = self.version.wait_for(|known| *known > version).await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut orders = self.watchers.0.orders.lock();
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
        let watches = OrderWatchers::default();
        let (mut first, mut second) = (watches.watch(id(1)), watches.watch(id(1)));
        watches.notify_version(id(2), 7);
        watches.notify_version(id(1), 2);
        // Late news changes nothing.
        watches.notify_version(id(1), 1);
        first.wait_until_after(1).await;
        second.wait_until_after(1).await;
        drop(first);
        assert_eq!(watches.len(), 1);
        drop(second);
        assert!(watches.is_empty());
    }
}

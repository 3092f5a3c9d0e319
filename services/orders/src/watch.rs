//! Order watchers: notification of status changes by local writes, by events from other replicas,
//! and by polling the store. A notification only wakes the watcher, which then reads the changes
//! from the store.

mod stream;

use std::{collections::HashMap, sync::Arc, time::Duration};

use palisade_middleware::{jitter, job, jobs::Run};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    order::{Order, OrderId},
    store::OrderStore,
};

pub use stream::{OrderStatusStream, Start};

/// Maximum number of orders per query.
const QUERY_CHUNK: usize = 1_000;
/// Jitter of the poll interval, ±20 %, so that replicas do not poll in step.
const JITTER: f64 = 0.2;

/// Registry of watched orders. Clones share the registry and are cheap.
#[derive(Debug, Clone, Default)]
pub struct OrderWatchers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Last known version of each watched order.
    orders: Mutex<HashMap<OrderId, watch::Sender<i64>>>,
    /// Signalled when this process writes to the outbox.
    outbox_written: Notify,
}

/// Registration of one watcher. Dropping it unregisters.
#[derive(Debug)]
pub struct Watcher {
    watchers: OrderWatchers,
    id: OrderId,
    version: watch::Receiver<i64>,
}

impl OrderWatchers {
    /// Starts to watch the order `id`.
    pub fn watch(&self, id: OrderId) -> Watcher {
        let version = self.0.orders.lock().entry(id).or_insert_with(|| watch::Sender::new(0)).subscribe();
        Watcher { watchers: self.clone(), id, version }
    }

    /// Notifies the watchers of the order that it has reached `version`.
    pub fn notify_version(&self, id: OrderId, version: i64) {
        if let Some(sender) = self.0.orders.lock().get(&id) {
            sender.send_if_modified(|known| std::mem::replace(known, version.max(*known)) < version);
        }
    }

    /// Notifies the watchers and the relay of an order that this process accepted or changed.
    pub fn notify_change(&self, order: &Order) {
        self.notify_version(order.id, order.version);
        self.notify_outbox();
    }

    /// Signals that this process wrote to the outbox.
    pub fn notify_outbox(&self) {
        self.0.outbox_written.notify_one();
    }

    /// Returns when the outbox was written since the last call, at the latest after `timeout`.
    pub async fn wait_for_outbox(&self, timeout: Duration) {
        // Notification and timeout have the same effect.
        let _ = tokio::time::timeout(timeout, self.0.outbox_written.notified()).await;
    }

    /// Number of watched orders.
    pub fn len(&self) -> usize {
        self.0.orders.lock().len()
    }

    /// Whether no order is watched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Polls the store for the versions of all watched orders at this interval, until the stop. One
    /// query covers up to 1,000 orders.
    pub async fn poll_versions(self, store: Arc<dyn OrderStore>, interval: Duration, Run { heartbeat, stop }: Run) -> job::Result {
        let polling = async {
            loop {
                heartbeat.idle(tokio::time::sleep(jitter::jittered(interval, JITTER, jitter::random_unit))).await;
                let watched: Vec<OrderId> = self.0.orders.lock().keys().copied().collect();
                if watched.is_empty() {
                    heartbeat.success();
                }
                for chunk in watched.chunks(QUERY_CHUNK) {
                    let versions = heartbeat.record(store.versions(chunk.to_vec()).await);
                    versions.into_iter().flatten().for_each(|(id, version)| self.notify_version(id, version));
                }
            }
        };
        stop.run_until_cancelled(polling).await;
        Ok(())
    }
}

impl Watcher {
    /// Returns when the known version of the order exceeds `version`.
    async fn wait_until_after(&mut self, version: i64) {
        // Cannot fail: the sender exists while there are watchers.
        let _ = self.version.wait_for(|known| *known > version).await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut orders = self.watchers.0.orders.lock();
        // The receiver being dropped is still counted.
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
    async fn watchers_are_notified_and_unregistered_on_drop() {
        let watches = OrderWatchers::default();
        let (mut first, mut second) = (watches.watch(id(1)), watches.watch(id(1)));
        watches.notify_version(id(2), 7);
        watches.notify_version(id(1), 2);
        // A stale version has no effect.
        watches.notify_version(id(1), 1);
        first.wait_until_after(1).await;
        second.wait_until_after(1).await;
        drop(first);
        assert_eq!(watches.len(), 1);
        drop(second);
        assert!(watches.is_empty());
    }
}

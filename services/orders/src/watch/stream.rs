//! Stream of an order's statuses: each status once, in order, up to a terminal one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use palisade_middleware::jitter;

use super::Watcher;
use crate::{
    order::Order,
    store::{Error, OrderStore},
};

/// Delay before a retry when the store is unavailable, ±50 %.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Status stream of one order. Buffers only the statuses that were read and not sent yet.
pub struct OrderStatusStream {
    store: Arc<dyn OrderStore>,
    watcher: Watcher,
    order: Order,
    last_sent_version: i64,
    pending: VecDeque<Order>,
    finished: bool,
}

/// Start position of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the current status.
    Now,
    /// After this version.
    After(i64),
}

impl OrderStatusStream {
    /// Creates the stream for `order`, which must be read after `watcher` was created, so that no
    /// change is missed.
    pub async fn new(store: Arc<dyn OrderStore>, watcher: Watcher, order: Order, start: Start) -> Result<Self, Error> {
        let (last_sent_version, pending) = match start {
            // A version that the order has not reached cannot be its own, so the stream starts at
            // the current status.
            Start::After(version) if (1..=order.version).contains(&version) => {
                (version, store.history_after(order.id, version).await?.into())
            }
            Start::Now | Start::After(_) => (0, VecDeque::from([order.clone()])),
        };
        let finished = pending.is_empty() && order.status.is_terminal();
        Ok(Self { store, watcher, order, last_sent_version, pending, finished })
    }

    /// Whether there is nothing to send: the order is in a terminal state that the caller has
    /// already received.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Converts to a stream of the order's state at each status. Ends after a terminal status.
    pub fn into_stream(self) -> impl Stream<Item = Order> + Send {
        stream::unfold(self, |mut status_stream| async {
            let order = status_stream.next().await?;
            Some((order, status_stream))
        })
    }

    async fn next(&mut self) -> Option<Order> {
        loop {
            if let Some(order) = self.pending.pop_front() {
                self.last_sent_version = order.version;
                self.finished = order.status.is_terminal();
                return Some(order);
            }
            if self.finished {
                return None;
            }
            self.watcher.wait_until_after(self.last_sent_version).await;
            match self.store.history_after(self.order.id, self.last_sent_version).await {
                Ok(changes) => self.pending = changes.into(),
                Err(error) => {
                    tracing::debug!(order_id = %self.order.id, error = &error as &dyn std::error::Error, "cannot read order changes, retrying");
                    tokio::time::sleep(jitter::jittered(STORE_RETRY_DELAY, 0.5, jitter::random_unit)).await;
                }
            }
        }
    }
}

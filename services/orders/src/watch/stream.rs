//! One who follows an order to its end: each status once, in order, however the news of it came.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use palisade_middleware::jitter;

use super::Watcher;
use crate::{
    order::Order,
    store::{Error, Store},
};

/// How long to wait for a store that does not answer, half as long more or less.
const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Follows one order. Holds no more than the statuses that it read and has not told.
pub struct OrderStatusStream {
    store: Arc<dyn Store>,
    watching: Watcher,
    order: Order,
    last_sent_version: i64,
    pending: VecDeque<Order>,
    finished: bool,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the present status.
    Now,
    /// After this version.
    After(i64),
}

impl OrderStatusStream {
    /// Follows `order`, which was read after `watching` began.
    pub async fn new(store: Arc<dyn Store>, watching: Watcher, order: Order, start: Start) -> Result<Self, Error> {
        let (last_sent_version, pending) = match start {
            // A version that the order has not reached is none of its own.
            Start::After(version) if (1..=order.version).contains(&version) => (version, store.history_after(order.id, version).await?.into()),
            Start::Now | Start::After(_) => (0, VecDeque::from([order.clone()])),
        };
        let finished = pending.is_empty() && order.status.is_terminal();
        Ok(Self { store, watching, order, last_sent_version, pending, finished })
    }

    /// Whether there is nothing to tell: the order is at its end, and whoever asks has seen it.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The order as it was with each status; ends after a terminal one.
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
            self.watching.wait_until_after(self.last_sent_version).await;
            match self.store.history_after(self.order.id, self.last_sent_version).await {
                Ok(changes) => self.pending = changes.into(),
                Err(error) => {
                    tracing::debug!(order_id = %self.order.id, error = &error as &dyn std::error::Error, "a change cannot be read yet");
                    tokio::time::sleep(jitter::jittered(STORE_RETRY_DELAY, 0.5, jitter::random_unit)).await;
                }
            }
        }
    }
}

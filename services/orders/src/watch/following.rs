//! One who follows an order to its end: each status once, in order, however the news of it came.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use palisade_middleware::jitter;

use super::Watching;
use crate::{
    order::Order,
    store::{Error, Store},
};

/// How long to wait for a store that does not answer, half as long more or less.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Follows one order. Holds no more than the statuses that it read and has not told.
pub struct Following {
    store: Arc<dyn Store>,
    watching: Watching,
    order: Order,
    told: i64,
    untold: VecDeque<Order>,
    over: bool,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the present status.
    Now,
    /// After this version.
    After(i64),
}

impl Following {
    /// Follows `order`, which was read after `watching` began.
    pub async fn new(store: Arc<dyn Store>, watching: Watching, order: Order, start: Start) -> Result<Self, Error> {
        let (told, untold) = match start {
            // A version that the order has not reached is none of its own.
            Start::After(version) if (1..=order.version).contains(&version) => (version, store.changes(order.id, version).await?.into()),
            Start::Now | Start::After(_) => (0, VecDeque::from([order.clone()])),
        };
        let over = untold.is_empty() && order.status.is_terminal();
        Ok(Self { store, watching, order, told, untold, over })
    }

    /// Whether there is nothing to tell: the order is at its end, and whoever asks has seen it.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The order as it was with each status; ends after a terminal one.
    pub fn into_stream(self) -> impl Stream<Item = Order> + Send {
        stream::unfold(self, |mut following| async {
            let order = following.next().await?;
            Some((order, following))
        })
    }

    async fn next(&mut self) -> Option<Order> {
        loop {
            if let Some(order) = self.untold.pop_front() {
                self.told = order.version;
                self.over = order.status.is_terminal();
                return Some(order);
            }
            if self.over {
                return None;
            }
            self.watching.until_after(self.told).await;
            match self.store.changes(self.order.id, self.told).await {
                Ok(changes) => self.untold = changes.into(),
                Err(error) => {
                    tracing::debug!(order_id = %self.order.id, error = &error as &dyn std::error::Error, "a change cannot be read yet");
                    tokio::time::sleep(jitter::around(STORE_PAUSE, 0.5, jitter::draw)).await;
                }
            }
        }
    }
}

//! Background tasks of the cache: invalidation by events, writes to Redis, size metrics.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_events::{Subscription, SubscriptionItem};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    key::Version,
    redis::{InvalidationQueue, RedisCache},
    store::Store,
};
use crate::metrics::{self, Cause};

/// Interval of the size metrics.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// Background tasks, to be run beside the cache.
#[derive(Debug)]
pub struct CacheTasks {
    store: Arc<Store>,
    invalidations: Option<InvalidationQueue>,
}

impl CacheTasks {
    pub(super) fn new(store: Arc<Store>, invalidations: Option<InvalidationQueue>) -> Self {
        Self { store, invalidations }
    }

    /// Returns the readiness probe of Redis; `None` without Redis.
    pub fn probe(&self) -> Option<impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + 'static> {
        let redis = self.store.redis.clone()?;
        Some(move || {
            let redis = redis.clone();
            async move { redis.ping().await }.boxed()
        })
    }

    /// Runs until `shutdown`. `events` are the change events of products.
    pub async fn run(self, events: Subscription, shutdown: CancellationToken) {
        let Self { store, invalidations } = self;
        let tasks = async {
            tokio::join!(
                Box::pin(invalidate_from_events(&store, events)),
                measure(&store),
                write_to_redis(store.redis.as_deref(), invalidations)
            )
        };
        let _ = shutdown.run_until_cancelled(tasks).await;
    }
}

async fn invalidate_from_events(store: &Store, mut events: Subscription) {
    loop {
        match events.next().await {
            SubscriptionItem::Lagged => store.invalidate_all(),
            SubscriptionItem::Event(event) => {
                let Ok(id) = event.subject.parse() else {
                    tracing::debug!(subject = event.subject, "ignoring event without a product id");
                    continue;
                };
                store.invalidate(Some(id), Version::from_sequence(event.sequence), Cause::Event);
            }
        }
    }
}

async fn measure(store: &Store) {
    let mut interval = interval(MEASURE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let (entries, bytes) = store.size();
        metrics::record_size(entries, bytes);
    }
}

async fn write_to_redis(redis: Option<&RedisCache>, invalidations: Option<InvalidationQueue>) {
    if let (Some(redis), Some(invalidations)) = (redis, invalidations) {
        redis.run_writer(invalidations).await;
    }
}

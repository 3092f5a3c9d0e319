//! Background tasks of the cache: invalidation by events, writes to Redis, size metrics.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_events::{Subscription, SubscriptionItem};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Version,
    redis::{InvalidationQueue, RedisCache},
};
use crate::metrics::{self, Cause};

/// Interval of the size metrics.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// Sequence of the event of a removal: the last event of a product.
const REMOVED: i64 = i64::MAX;

/// Background tasks, to be run beside the cache.
#[derive(Debug)]
pub struct CacheTasks {
    shared: Arc<Shared>,
    invalidations: Option<InvalidationQueue>,
}

impl CacheTasks {
    pub(super) fn new(shared: Arc<Shared>, invalidations: Option<InvalidationQueue>) -> Self {
        Self { shared, invalidations }
    }

    /// Returns the readiness probe of Redis; `None` without Redis.
    pub fn probe(&self) -> Option<impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + 'static> {
        let redis = self.shared.redis.clone()?;
        Some(move || {
            let redis = redis.clone();
            async move { redis.ping().await }.boxed()
        })
    }

    /// Runs until `shutdown`. `events` are the change events of products.
    pub async fn run(self, events: Subscription, shutdown: CancellationToken) {
        let Self { shared, invalidations } = self;
        let work = async {
            tokio::join!(
                Box::pin(invalidate_from_events(&shared, events)),
                measure(&shared),
                write_to_redis(shared.redis.as_deref(), invalidations)
            )
        };
        let _ = shutdown.run_until_cancelled(work).await;
    }
}

async fn invalidate_from_events(shared: &Shared, mut events: Subscription) {
    loop {
        match events.next().await {
            SubscriptionItem::Lagged => shared.invalidate_all(),
            SubscriptionItem::Event(event) => {
                let Ok(id) = event.subject.parse() else {
                    tracing::debug!(subject = event.subject, "ignoring event without a product id");
                    continue;
                };
                let to = if event.sequence == REMOVED { Version::Removed } else { Version::Known(event.sequence) };
                shared.invalidate(Some(id), to, Cause::Event);
            }
        }
    }
}

async fn measure(shared: &Shared) {
    let mut pace = interval(MEASURE_INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let (entries, bytes) = shared.store.size();
        metrics::record_size(entries, bytes);
    }
}

async fn write_to_redis(redis: Option<&RedisCache>, invalidations: Option<InvalidationQueue>) {
    if let (Some(redis), Some(invalidations)) = (redis, invalidations) {
        redis.run_writer(invalidations).await;
    }
}

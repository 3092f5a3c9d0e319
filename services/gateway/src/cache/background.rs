//! What runs beside the cache: it outdates what has changed, tells the second level, and how much is kept.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_events::{SubscriptionItem, Subscription};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Version,
    redis::{InvalidationQueue, RedisCache},
};
use crate::metrics::{self, Cause};

/// How often it is told how much is kept.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// The sequence of the last event of a product: there is none after it.
const REMOVED: i64 = i64::MAX;

/// See the module.
#[derive(Debug)]
pub struct CacheTasks {
    shared: Arc<Shared>,
    invalidations: Option<InvalidationQueue>,
}

impl CacheTasks {
    pub(super) fn new(shared: Arc<Shared>, invalidations: Option<InvalidationQueue>) -> Self {
        Self { shared, invalidations }
    }

    /// Whether the second level can be reached, for a probe; `None` if there is none.
    pub fn probe(&self) -> Option<impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + 'static> {
        let redis = self.shared.redis.clone()?;
        Some(move || {
            let redis = redis.clone();
            async move { redis.ping().await }.boxed()
        })
    }

    /// Works until `shutdown`; `events` are those of products.
    pub async fn run(self, events: Subscription, shutdown: CancellationToken) {
        let Self { shared, invalidations } = self;
        let work =
            async { tokio::join!(Box::pin(invalidate_from_events(&shared, events)), measure(&shared), write_to_redis(shared.redis.as_deref(), invalidations)) };
        let _ = shutdown.run_until_cancelled(work).await;
    }
}

async fn invalidate_from_events(shared: &Shared, mut events: Subscription) {
    loop {
        match events.next().await {
            SubscriptionItem::Lagged => shared.invalidate_all(),
            SubscriptionItem::Event(event) => {
                let Ok(id) = event.subject.parse() else {
                    tracing::debug!(subject = event.subject, "an event that is of no product is left alone");
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

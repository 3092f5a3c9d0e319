//! Background tasks of the cache: invalidation by events, writes to Redis, size metrics.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_events::{Broker, Subscription, SubscriptionItem, Topic};
use palisade_middleware::{
    job::Heartbeat,
    jobs::{Jobs, Need, Run},
};
use tokio::{
    sync::Mutex,
    time::{MissedTickBehavior, interval},
};

use super::{key::Version, redis::InvalidationQueue, store::Store};
use crate::metrics::{self, Cause};

/// Interval of the size metrics.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// Background tasks, to be started beside the cache.
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

    /// Starts the tasks. `broker` delivers the change events of products.
    pub fn start(self, jobs: &Jobs, broker: &Broker) {
        let Self { store, invalidations } = self;
        let (invalidated, broker) = (store.clone(), broker.clone());
        jobs.supervise("gateway.cache.invalidation", Need::Optional, move |Run { heartbeat, stop }| {
            let (store, events) = (invalidated.clone(), broker.subscribe(Topic::PRODUCTS));
            async move {
                // Events may have been missed before this run.
                store.invalidate_all();
                stop.run_until_cancelled(Box::pin(invalidate_from_events(&store, events, &heartbeat))).await;
                Ok(())
            }
        });
        let measured = store.clone();
        jobs.supervise("gateway.cache.size", Need::Optional, move |Run { heartbeat, stop }| {
            let store = measured.clone();
            async move {
                stop.run_until_cancelled(measure(&store, &heartbeat)).await;
                Ok(())
            }
        });
        let (Some(redis), Some(queue)) = (store.redis.clone(), invalidations) else { return };
        let queue = Arc::new(Mutex::new(queue));
        jobs.supervise("gateway.cache.redis", Need::Optional, move |Run { heartbeat, stop }| {
            let (redis, queue) = (redis.clone(), queue.clone());
            async move {
                let mut queue = queue.lock().await;
                stop.run_until_cancelled(heartbeat.idle(redis.run_writer(&mut queue))).await;
                Ok(())
            }
        });
    }
}

async fn invalidate_from_events(store: &Store, mut events: Subscription, heartbeat: &Heartbeat) {
    loop {
        match heartbeat.idle(events.next()).await {
            SubscriptionItem::Lagged => store.invalidate_all(),
            SubscriptionItem::Event(event) => {
                let Ok(id) = event.subject.parse() else {
                    tracing::debug!(subject = event.subject, "ignoring event without a product id");
                    continue;
                };
                store.invalidate(Some(id), Version::from_sequence(event.sequence), Cause::Event);
            }
        }
        heartbeat.success();
    }
}

async fn measure(store: &Store, heartbeat: &Heartbeat) {
    let mut interval = interval(MEASURE_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let (entries, bytes) = store.size();
        metrics::record_size(entries, bytes);
        heartbeat.success();
    }
}

//! What runs beside the cache: it outdates what has changed, tells the second level, and how much is kept.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_events::{Notice, Subscription};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Version,
    second_level::{Changes, SecondLevel},
};
use crate::metrics::{self, Cause};

/// How often it is told how much is kept.
const MEASURED_EVERY: Duration = Duration::from_secs(1);
/// The sequence of the last event of a product: there is none after it.
const REMOVED: i64 = i64::MAX;

/// See the module.
#[derive(Debug)]
pub struct Upkeep {
    shared: Arc<Shared>,
    changes: Option<Changes>,
}

impl Upkeep {
    pub(super) fn new(shared: Arc<Shared>, changes: Option<Changes>) -> Self {
        Self { shared, changes }
    }

    /// Whether the second level can be reached, for a probe; `None` if there is none.
    pub fn probe(&self) -> Option<impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + 'static> {
        let second_level = self.shared.second_level.clone()?;
        Some(move || {
            let second_level = second_level.clone();
            async move { second_level.ping().await }.boxed()
        })
    }

    /// Works until `shutdown`; `events` are those of products.
    pub async fn run(self, events: Subscription, shutdown: CancellationToken) {
        let Self { shared, changes } = self;
        let work =
            async { tokio::join!(Box::pin(follow(&shared, events)), measure(&shared), tell(shared.second_level.as_deref(), changes)) };
        let _ = shutdown.run_until_cancelled(work).await;
    }
}

async fn follow(shared: &Shared, mut events: Subscription) {
    loop {
        match events.next().await {
            Notice::Missed => shared.outdate_all(),
            Notice::Event(event) => {
                let Ok(id) = event.subject.parse() else {
                    tracing::debug!(subject = event.subject, "an event that is of no product is left alone");
                    continue;
                };
                let to = if event.sequence == REMOVED { Version::Gone } else { Version::Is(event.sequence) };
                shared.outdate(Some(id), to, Cause::Event);
            }
        }
    }
}

async fn measure(shared: &Shared) {
    let mut pace = interval(MEASURED_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let (entries, bytes) = shared.store.size();
        metrics::kept(entries, bytes);
    }
}

async fn tell(second_level: Option<&SecondLevel>, changes: Option<Changes>) {
    if let (Some(second_level), Some(changes)) = (second_level, changes) {
        second_level.tell(changes).await;
    }
}

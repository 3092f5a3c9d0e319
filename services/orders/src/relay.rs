//! Outbox of orders for the event relay, and notification of order watchers by events.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_events::{Destination, Event, Lease, Outbox, Subscription, SubscriptionItem, Topic};
use palisade_middleware::{
    clock::{self, Clock},
    job,
    jobs::Run,
};
use uuid::Uuid;

use crate::{
    store::{self, OutboxStore},
    watch::OrderWatchers,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Outbox that the relay publishes from.
pub struct OrdersOutbox {
    /// Store of the events.
    pub store: Arc<dyn OutboxStore>,
    /// Notifies the relay of new events.
    pub watchers: OrderWatchers,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
}

impl store::Event {
    /// Converts an outbox row to its published form.
    #[must_use]
    pub fn into_event(self) -> Event {
        Event {
            id: self.id,
            source: Topic::ORDERS.source.to_owned(),
            kind: self.kind,
            subject: self.order_id.to_string(),
            sequence: self.version,
            time: self.created_at,
            trace_parent: self.trace_parent,
            data: self.payload,
        }
    }
}

#[async_trait]
impl Outbox for OrdersOutbox {
    async fn lease(&self, relay: Uuid, destination: Destination, lease: Duration) -> Result<Lease, Error> {
        let now = self.clock.now();
        Ok(self.store.lease_outbox(relay, destination, now, clock::after(now, lease)).await?)
    }

    async fn fetch_unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        Ok(self.store.unpublished(limit).await?.into_iter().map(store::Event::into_event).collect())
    }

    async fn mark_published(&self, events: &[Event], destination: Destination) -> Result<(), Error> {
        let ids = events.iter().map(|event| event.id).collect();
        Ok(self.store.mark_published(ids, destination, self.clock.now()).await?)
    }

    async fn mark_failed(&self, events: &[(Event, String)], max_attempts: u32) -> Result<u64, Error> {
        let events = events.iter().map(|(event, reason)| (event.id, reason.clone())).collect();
        Ok(self.store.mark_rejected(events, max_attempts, self.clock.now()).await?)
    }

    async fn wait_for_events(&self, timeout: Duration) {
        self.watchers.wait_for_outbox(timeout).await;
    }
}

/// Notifies watchers of changes that other replicas made, until the stop. Missed events are covered
/// by polling.
pub async fn notify_watchers(watchers: OrderWatchers, mut events: Subscription, Run { heartbeat, stop }: Run) -> job::Result {
    while let Some(item) = Box::pin(stop.run_until_cancelled(heartbeat.idle(events.next()))).await {
        if let SubscriptionItem::Event(event) = item
            && let Ok(id) = event.subject.parse()
        {
            watchers.notify_version(id, event.sequence);
        }
        heartbeat.success();
    }
    Ok(())
}

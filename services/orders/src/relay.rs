//! The outbox of orders, as the relay of events sees it, and the events of orders as those see them who watch them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_events::{Event, Notice, Outbox, Subscription, Topic};
use palisade_middleware::clock::Clock;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    store::{self, Store},
    watch::Watches,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What the relay works on.
pub struct OrdersOutbox {
    /// Where events are kept.
    pub store: Arc<dyn Store>,
    /// Who tells that there is a new one.
    pub watches: Watches,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl store::Event {
    /// As others are told of it.
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
    async fn lease(&self, relay: Uuid, lease: Duration) -> Result<bool, Error> {
        let now = self.clock.now();
        Ok(self.store.lease_outbox(relay, now, now + lease).await?)
    }

    async fn waiting(&self, limit: u32) -> Result<Vec<Event>, Error> {
        Ok(self.store.unpublished(limit).await?.into_iter().map(store::Event::into_event).collect())
    }

    async fn published(&self, events: &[Event]) -> Result<(), Error> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        Ok(self.store.mark_published(&ids, self.clock.now()).await?)
    }

    async fn refused(&self, events: &[(Event, String)], most: u32) -> Result<u64, Error> {
        let events: Vec<(Uuid, String)> = events.iter().map(|(event, reason)| (event.id, reason.clone())).collect();
        Ok(self.store.mark_refused(&events, most, self.clock.now()).await?)
    }

    async fn until_written(&self, patience: Duration) {
        self.watches.until_written(patience).await;
    }
}

/// Wakes whoever watches an order of which another replica tells, until `shutdown`. What it misses is found by looking.
pub async fn wake(watches: Watches, mut events: Subscription, shutdown: CancellationToken) {
    while let Some(notice) = shutdown.run_until_cancelled(events.next()).await {
        if let Notice::Event(event) = notice
            && let Ok(id) = event.subject.parse()
        {
            watches.announce(id, event.sequence);
        }
    }
}

//! Transactional outbox of product changes for the event relay: one event per changed product, for
//! its latest version.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use palisade_events::{Destination, Event, Lease, Outbox, Topic, metrics};
use palisade_middleware::clock::{self, Clock};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::store::{OutboxStore, PendingChange};

/// Event type: the product changed. Consumers fetch the current state.
const CHANGED: &str = "palisade.products.v1.changed";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Outbox over the product store.
pub struct ProductsOutbox {
    /// Store of the changes.
    pub store: Arc<dyn OutboxStore>,
    /// Notified after each write that may have changed a product.
    pub changed: Arc<Notify>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
}

impl PendingChange {
    /// Builds the event. Its id is derived from product and version, so a republished event has the
    /// same id.
    fn event(&self) -> Event {
        let mut digest = Sha256::new();
        digest.update(self.product_id.as_bytes());
        digest.update(self.version.to_be_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.finalize()[..16]);
        let version = (self.version != Self::REMOVED).then_some(self.version);
        Event {
            id: uuid::Builder::from_random_bytes(bytes).into_uuid(),
            source: Topic::PRODUCTS.source.to_owned(),
            kind: CHANGED.to_owned(),
            subject: self.product_id.to_string(),
            sequence: self.version,
            time: self.since,
            trace_parent: None,
            data: json!({ "productId": self.product_id.to_string(), "version": version, "removed": version.is_none() }).to_string(),
        }
    }
}

fn pending_change(event: &Event) -> Result<PendingChange, Error> {
    Ok(PendingChange { product_id: event.subject.parse::<Uuid>()?, version: event.sequence, since: event.time })
}

#[async_trait]
impl Outbox for ProductsOutbox {
    async fn lease(&self, relay: Uuid, destination: Destination, lease: Duration) -> Result<Lease, Error> {
        let now = self.clock.now();
        let lease = self.store.lease_relay(relay, destination, now, clock::after(now, lease)).await;
        if !matches!(lease, Ok(Lease::Held)) {
            // The backlog is read by the replica with the lease.
            metrics::forget_backlog();
        }
        Ok(lease?)
    }

    async fn fetch_unpublished(&self, limit: u32) -> Result<Vec<Event>, Error> {
        let pending = self.store.unpublished_changes(limit).await?;
        let oldest = pending.iter().map(|change| change.since).min();
        let age = oldest.map_or(Duration::ZERO, |oldest| clock::age(oldest, self.clock.now()));
        metrics::record_backlog(pending.len() as u64, age);
        Ok(pending.iter().map(PendingChange::event).collect())
    }

    async fn mark_published(&self, events: &[Event], destination: Destination) -> Result<(), Error> {
        let changes = events.iter().map(pending_change).collect::<Result<Vec<_>, _>>()?;
        Ok(self.store.mark_published(changes, destination).await?)
    }

    /// Never dead-letters: the payload cannot be invalid, and an unpublished change would leave
    /// stale cache entries. The events stay in the outbox.
    async fn mark_failed(&self, _: &[(Event, String)], _: u32) -> Result<u64, Error> {
        Ok(0)
    }

    async fn wait_for_events(&self, timeout: Duration) {
        // A notification and a timeout are handled alike.
        let _ = tokio::time::timeout(timeout, self.changed.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn event_id_is_derived_from_product_and_version() {
        let change = |version| PendingChange { product_id: Uuid::nil(), version, since: OffsetDateTime::UNIX_EPOCH };
        assert_eq!(change(3).event(), change(3).event());
        assert_ne!(change(3).event().id, change(4).event().id);
        assert_eq!(pending_change(&change(3).event()).unwrap(), change(3));
        assert_eq!(
            change(PendingChange::REMOVED).event().data,
            r#"{"productId":"00000000-0000-0000-0000-000000000000","removed":true,"version":null}"#
        );
    }
}

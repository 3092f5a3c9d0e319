//! Event broker: NATS `JetStream`, or an in-process broadcast channel when no broker is configured.

mod in_memory;
mod nats;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_middleware::config::Error;

use self::nats::Nats;
use crate::{config::Config, event::Event, subscription::Subscription};

pub(crate) use nats::{Nats as NatsBroker, SYSTEM as NATS_SYSTEM};

/// A family of events and the stream that stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Name of the stream.
    pub stream: &'static str,
    /// Subject filter of the stream.
    pub subjects: &'static str,
    /// `source` attribute of the events, which names the publishing service.
    pub source: &'static str,
}

/// Result of publishing one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored by the broker, now or earlier (duplicate id).
    Published,
    /// Rejected because of its content, so that a retry cannot help. Holds the broker's message.
    Rejected(String),
    /// No acknowledgement, or an error that does not concern the event. Holds the reason.
    Unavailable(String),
}

/// Broker client. Connects on first use and reconnects by itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker(Backend);

#[derive(Debug, Clone)]
enum Backend {
    Nats(Arc<Nats>),
    InMemory,
}

impl Topic {
    /// Status changes of orders.
    pub const ORDERS: Self = Self { stream: "PALISADE_ORDERS", subjects: "palisade.orders.v1.>", source: "/palisade/orders" };
    /// Changes of products, including their stock.
    pub const PRODUCTS: Self = Self { stream: "PALISADE_PRODUCTS", subjects: "palisade.products.v1.>", source: "/palisade/products" };
}

impl Broker {
    /// Creates a client for the broker in `config`, or an in-process broker without a URL.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self(match config.url()? {
            Some(url) => Backend::Nats(Arc::new(Nats::new(url, config))),
            None => Backend::InMemory,
        }))
    }

    /// `messaging.system` of spans, from the OpenTelemetry semantic conventions.
    pub fn system(&self) -> &'static str {
        match self.0 {
            Backend::Nats(_) => NATS_SYSTEM,
            Backend::InMemory => "process",
        }
    }

    /// Linger time: how long a relay waits for further events before it publishes a batch.
    /// In-process publishing is not urgent, and a longer linger saves transactions.
    pub(crate) fn linger(&self) -> Duration {
        match self.0 {
            Backend::Nats(_) => Duration::from_millis(10),
            Backend::InMemory => Duration::from_millis(200),
        }
    }

    /// Publishes `events` in order and returns the outcome of each. A call must hold at most one
    /// event per subject, since a rejected event must not be overtaken by its successor.
    pub async fn publish(&self, topic: Topic, events: &[Event]) -> Vec<Outcome> {
        match &self.0 {
            Backend::Nats(nats) => nats.publish(topic, events).await,
            Backend::InMemory => in_memory::publish(events),
        }
    }

    /// Subscribes to all future events of `topic`.
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        match &self.0 {
            Backend::Nats(nats) => Subscription::nats(nats.clone(), topic),
            Backend::InMemory => Subscription::in_memory(in_memory::subscribe(), topic),
        }
    }

    /// Returns a readiness probe for the broker connection, or `None` for the in-process broker.
    pub fn probe(&self) -> Option<impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + 'static> {
        let Backend::Nats(nats) = &self.0 else { return None };
        let nats = nats.clone();
        Some(move || {
            let nats = nats.clone();
            async move { nats.ping(Duration::from_secs(1)).await }.boxed()
        })
    }

    /// Returns the NATS client, or `None` for the in-process broker.
    pub(crate) fn nats(&self) -> Option<&Arc<Nats>> {
        match &self.0 {
            Backend::Nats(nats) => Some(nats),
            Backend::InMemory => None,
        }
    }
}

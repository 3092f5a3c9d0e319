//! Event broker: NATS `JetStream`, or an in-process broadcast channel if no broker is configured.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_middleware::setting::Invalid;
use tokio::sync::broadcast;

use crate::{
    config::Config,
    event::{Event, Topic},
    nats::{Nats, Outcome},
    subscription::Subscription,
};

/// Capacity of the in-process channel, events. A receiver that lags further behind misses the
/// oldest events.
const CHANNEL_CAPACITY: usize = 1_024;

/// Process-wide channel, so that services in one process need no shared handle.
static CHANNEL: LazyLock<broadcast::Sender<Arc<Event>>> = LazyLock::new(|| broadcast::Sender::new(CHANNEL_CAPACITY));

/// Broker client. Connects on first use and reconnects by itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker(Backend);

/// Where published events go. Part of a relay's lease: events of an outbox that a broker receives
/// are never marked as published by a replica without that broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Subscribers of this process only.
    InProcess,
    /// The configured broker.
    Broker,
}

impl Destination {
    /// Stable name, as an outbox stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in_process",
            Self::Broker => "broker",
        }
    }
}

#[derive(Debug, Clone)]
enum Backend {
    Nats(Arc<Nats>),
    InMemory,
}

impl Broker {
    /// Creates a client for the broker in `config`, or an in-process broker without a URL.
    pub fn new(config: &Config) -> Result<Self, Invalid> {
        Ok(Self(match config.url()? {
            Some(url) => Backend::Nats(Arc::new(Nats::new(url, config))),
            None => Backend::InMemory,
        }))
    }

    /// Returns where published events go.
    pub fn destination(&self) -> Destination {
        match self.0 {
            Backend::Nats(_) => Destination::Broker,
            Backend::InMemory => Destination::InProcess,
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

    /// Publishes `events` in order and returns the outcome of each. A call must contain at most one
    /// event per subject, since a rejected event must not be overtaken by its successor.
    pub async fn publish(&self, topic: Topic, events: &[Event]) -> Vec<Outcome> {
        match &self.0 {
            Backend::Nats(nats) => nats.publish(topic, events).await,
            Backend::InMemory => {
                for event in events {
                    // An event without receivers counts as published.
                    let _ = CHANNEL.send(Arc::new(event.clone()));
                }
                vec![Outcome::Published; events.len()]
            }
        }
    }

    /// Subscribes to all future events of `topic`.
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        match &self.0 {
            Backend::Nats(nats) => Subscription::nats(nats.clone(), topic),
            Backend::InMemory => Subscription::in_memory(CHANNEL.subscribe(), topic),
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
}

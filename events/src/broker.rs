//! Where events go: to NATS `JetStream`, or nowhere but to whoever listens in this process.

mod nats;
mod in_memory;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_middleware::config::Error;

use self::nats::Nats;
use crate::{config::Config, event::Event, subscription::Subscription};

pub(crate) use nats::{Nats as NatsBroker, SYSTEM as NATS_SYSTEM};

/// A family of events: which stream keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// The stream's name.
    pub stream: &'static str,
    /// The subjects that it has.
    pub subjects: &'static str,
    /// Who tells of them.
    pub source: &'static str,
}

/// What became of an event that was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept there, or was already.
    Published,
    /// It was refused, and would be again; the broker's words.
    Rejected(String),
    /// There was no answer, or none that says anything of the event; why.
    Unavailable(String),
}

/// The way to the broker. Cheap to clone; connects when it is needed, and again when it has to.
#[derive(Debug, Clone)]
pub struct Broker(Backend);

#[derive(Debug, Clone)]
enum Backend {
    Nats(Arc<Nats>),
    InMemory,
}

impl Topic {
    /// The changes of orders.
    pub const ORDERS: Self = Self { stream: "PALISADE_ORDERS", subjects: "palisade.orders.v1.>", source: "/palisade/orders" };
    /// The changes of products.
    pub const PRODUCTS: Self = Self { stream: "PALISADE_PRODUCTS", subjects: "palisade.products.v1.>", source: "/palisade/products" };
}

impl Broker {
    /// The broker that `config` names, or this process.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self(match config.url()? {
            Some(url) => Backend::Nats(Arc::new(Nats::new(url, config))),
            None => Backend::InMemory,
        }))
    }

    /// Its name in spans, after semantic conventions.
    pub fn system(&self) -> &'static str {
        match self.0 {
            Backend::Nats(_) => NATS_SYSTEM,
            Backend::InMemory => "process",
        }
    }

    /// How long a relay waits for more to go along. What stays in this process costs a transaction and gains nothing by haste.
    pub(crate) fn linger(&self) -> Duration {
        match self.0 {
            Backend::Nats(_) => Duration::from_millis(10),
            Backend::InMemory => Duration::from_millis(200),
        }
    }

    /// Hands `events` over, in order; the outcome of each. The events of one subject are not to be handed over together.
    pub async fn publish(&self, topic: Topic, events: &[Event]) -> Vec<Outcome> {
        match &self.0 {
            Backend::Nats(nats) => nats.publish(topic, events).await,
            Backend::InMemory => in_memory::publish(events),
        }
    }

    /// All events of `topic` from now on.
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        match &self.0 {
            Backend::Nats(nats) => Subscription::nats(nats.clone(), topic),
            Backend::InMemory => Subscription::in_memory(in_memory::subscribe(), topic),
        }
    }

    /// Whether the broker can be reached, for a probe; `None` if there is none.
    pub fn probe(&self) -> Option<impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + 'static> {
        let Backend::Nats(nats) = &self.0 else { return None };
        let nats = nats.clone();
        Some(move || {
            let nats = nats.clone();
            async move { nats.ping(Duration::from_secs(1)).await }.boxed()
        })
    }

    /// The NATS behind it.
    pub(crate) fn nats(&self) -> Option<&Arc<Nats>> {
        match &self.0 {
            Backend::Nats(nats) => Some(nats),
            Backend::InMemory => None,
        }
    }
}

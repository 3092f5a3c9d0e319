//! Event subscription: all future events of a topic, for one process, e.g. for cache invalidation.
//!
//! It stores no position and requests no redelivery. When events may have been missed it yields
//! [`SubscriptionItem::Lagged`]: the subscriber must then discard all state derived from events.

use std::{future::pending, sync::Arc, time::Duration};

use async_nats::Subscriber;
use futures_util::StreamExt;
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use crate::{
    event::{Event, Topic},
    nats::Nats,
};

/// Time after a reconnect until a second [`SubscriptionItem::Lagged`]: the server may register the
/// subscription later than the client considers itself connected.
const RESUBSCRIBE_GRACE: Duration = Duration::from_secs(1);
/// Delay before another attempt to subscribe.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Item of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionItem {
    /// An event.
    Event(Box<Event>),
    /// Events were or may have been missed.
    Lagged,
}

/// Subscription to a topic, see the module documentation. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    topic: Topic,
    source: Source,
}

#[derive(Debug)]
enum Source {
    InMemory(broadcast::Receiver<Arc<Event>>),
    Nats { nats: Arc<Nats>, reconnects: watch::Receiver<u64>, subscriber: Option<Subscriber>, grace_until: Option<Instant> },
}

impl Subscription {
    pub(crate) fn in_memory(receiver: broadcast::Receiver<Arc<Event>>, topic: Topic) -> Self {
        Self { topic, source: Source::InMemory(receiver) }
    }

    pub(crate) fn nats(nats: Arc<Nats>, topic: Topic) -> Self {
        let reconnects = nats.reconnects();
        Self { topic, source: Source::Nats { nats, reconnects, subscriber: None, grace_until: None } }
    }

    /// Waits for the next item; the subscription never ends. Cancel safe.
    pub async fn next(&mut self) -> SubscriptionItem {
        let topic = self.topic;
        match &mut self.source {
            Source::InMemory(receiver) => loop {
                match receiver.recv().await {
                    Ok(event) if event.source == topic.source => return SubscriptionItem::Event(Box::new(Event::clone(&event))),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return SubscriptionItem::Lagged,
                    Err(broadcast::error::RecvError::Closed) => pending().await,
                }
            },
            Source::Nats { nats, reconnects, subscriber, grace_until } => loop {
                let Some(messages) = subscriber else {
                    let subscribed = match nats.client().await {
                        Ok(client) => client.subscribe(topic.subjects).await.map_err(|error| error.to_string()),
                        Err(error) => Err(error),
                    };
                    match subscribed {
                        Ok(messages) => *subscriber = Some(messages),
                        Err(error) => {
                            tracing::debug!(error, "event subscription failed, retrying");
                            tokio::time::sleep(RETRY_DELAY).await;
                        }
                    }
                    continue;
                };
                let grace_elapsed = async {
                    match *grace_until {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    // `changed` cannot fail: this subscription holds the sender.
                    _ = reconnects.changed() => {
                        *grace_until = Some(Instant::now() + RESUBSCRIBE_GRACE);
                        return SubscriptionItem::Lagged;
                    }
                    () = grace_elapsed => {
                        *grace_until = None;
                        return SubscriptionItem::Lagged;
                    }
                    message = messages.next() => match message {
                        None => *subscriber = None,
                        Some(message) => match Event::from_json(&message.payload) {
                            Ok(event) => return SubscriptionItem::Event(Box::new(event)),
                            Err(error) => tracing::debug!(%error, "ignored a malformed event"),
                        },
                    },
                }
            },
        }
    }
}

//! All events of a topic from now on, for this process: to be woken by, or to forget by.
//!
//! It keeps no place and asks for nothing again. Where events may have passed it by it says so, and whoever remembers anything that they
//! would have changed forgets all of it.

use std::{future::pending, sync::Arc, time::Duration};

use async_nats::Subscriber;
use futures_util::StreamExt;
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use crate::{
    broker::{NatsBroker, Topic},
    event::Event,
};

/// After a disruption the server may learn a moment later than we that we listen again.
const RESUBSCRIBE_GRACE: Duration = Duration::from_secs(1);
/// How long to wait before another try to listen.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// What there is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionItem {
    /// Something has changed.
    Event(Box<Event>),
    /// Anything may have changed: events were missed, or may have been.
    Lagged,
}

/// See the module. Dropped, it listens no more.
#[derive(Debug)]
pub struct Subscription {
    topic: Topic,
    source: Source,
}

#[derive(Debug)]
enum Source {
    InMemory(broadcast::Receiver<Arc<Event>>),
    Nats { nats: Arc<NatsBroker>, reconnects: watch::Receiver<u64>, subscriber: Option<Subscriber>, grace_until: Option<Instant> },
}

impl Subscription {
    pub(crate) fn in_memory(receiver: broadcast::Receiver<Arc<Event>>, topic: Topic) -> Self {
        Self { topic, source: Source::InMemory(receiver) }
    }

    pub(crate) fn nats(nats: Arc<NatsBroker>, topic: Topic) -> Self {
        let reconnects = nats.reconnects();
        Self { topic, source: Source::Nats { nats, reconnects, subscriber: None, grace_until: None } }
    }

    /// Waits for the next notice; there is always one more to wait for. May be dropped and called again.
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
            Source::Nats { nats, reconnects, subscriber, grace_until: unsettled } => loop {
                let Some(messages) = subscriber else {
                    let subscribed = match nats.client().await {
                        Ok(client) => client.subscribe(topic.subjects).await.map_err(|error| error.to_string()),
                        Err(error) => Err(error),
                    };
                    match subscribed {
                        Ok(messages) => *subscriber = Some(messages),
                        Err(error) => {
                            tracing::debug!(error, "no subscription, it is tried again");
                            tokio::time::sleep(RETRY_DELAY).await;
                        }
                    }
                    continue;
                };
                let grace_elapsed = async {
                    match *unsettled {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    // The nats lives as long as this holds it.
                    _ = reconnects.changed() => {
                        *unsettled = Some(Instant::now() + RESUBSCRIBE_GRACE);
                        return SubscriptionItem::Lagged;
                    }
                    () = grace_elapsed => {
                        *unsettled = None;
                        return SubscriptionItem::Lagged;
                    }
                    message = messages.next() => match message {
                        None => *subscriber = None,
                        Some(message) => match Event::from_json(&message.payload) {
                            Ok(event) => return SubscriptionItem::Event(Box::new(event)),
                            Err(error) => tracing::debug!(%error, "what came is left alone"),
                        },
                    },
                }
            },
        }
    }
}

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
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before another try to listen.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What there is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something has changed.
    Event(Box<Event>),
    /// Anything may have changed: events were missed, or may have been.
    Missed,
}

/// See the module. Dropped, it listens no more.
#[derive(Debug)]
pub struct Subscription {
    topic: Topic,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Process(broadcast::Receiver<Arc<Event>>),
    Nats { nats: Arc<NatsBroker>, disruptions: watch::Receiver<u64>, subscriber: Option<Subscriber>, unsettled: Option<Instant> },
}

impl Subscription {
    pub(crate) fn of_process(receiver: broadcast::Receiver<Arc<Event>>, topic: Topic) -> Self {
        Self { topic, source: Source::Process(receiver) }
    }

    pub(crate) fn of_nats(nats: Arc<NatsBroker>, topic: Topic) -> Self {
        let disruptions = nats.disruptions();
        Self { topic, source: Source::Nats { nats, disruptions, subscriber: None, unsettled: None } }
    }

    /// Waits for the next notice; there is always one more to wait for. May be dropped and called again.
    pub async fn next(&mut self) -> Notice {
        let topic = self.topic;
        match &mut self.source {
            Source::Process(receiver) => loop {
                match receiver.recv().await {
                    Ok(event) if event.source == topic.source => return Notice::Event(Box::new(Event::clone(&event))),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return Notice::Missed,
                    Err(broadcast::error::RecvError::Closed) => pending().await,
                }
            },
            Source::Nats { nats, disruptions, subscriber, unsettled } => loop {
                let Some(listening) = subscriber else {
                    let listening = match nats.client().await {
                        Ok(client) => client.subscribe(topic.subjects).await.map_err(|error| error.to_string()),
                        Err(error) => Err(error),
                    };
                    match listening {
                        Ok(listening) => *subscriber = Some(listening),
                        Err(error) => {
                            tracing::debug!(error, "no subscription, it is tried again");
                            tokio::time::sleep(AGAIN_AFTER).await;
                        }
                    }
                    continue;
                };
                let settled = async {
                    match *unsettled {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    // The nats lives as long as this holds it.
                    _ = disruptions.changed() => {
                        *unsettled = Some(Instant::now() + SETTLED_AFTER);
                        return Notice::Missed;
                    }
                    () = settled => {
                        *unsettled = None;
                        return Notice::Missed;
                    }
                    message = listening.next() => match message {
                        None => *subscriber = None,
                        Some(message) => match Event::from_json(&message.payload) {
                            Ok(event) => return Notice::Event(Box::new(event)),
                            Err(error) => tracing::debug!(%error, "what came is left alone"),
                        },
                    },
                }
            },
        }
    }
}

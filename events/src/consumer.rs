//! Every event of a topic until its effect is done: a place that the broker keeps under a name, shared by all processes that use it.
//!
//! An event may come again: after a crash between its effect and the acknowledgement, or because it was published twice. So an effect is
//! idempotent: it remembers, in the same step in which it acts, the sequence of the event for its subject, and answers
//! [`Applied::Before`] to what is not above it.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, pull},
};
use async_trait::async_trait;
use futures_util::StreamExt;
use metrics::counter;
use palisade_middleware::{jitter, recorded_span, trace};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field::Empty};

use crate::{
    broker::{Broker, NATS_SYSTEM, NatsBroker, Topic},
    event::Event,
    subscription::{SubscriptionItem, Subscription},
};

/// How long an effect may take before the broker gives the event to another process.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// When an event comes again whose effect failed, half as long more or less.
const REDELIVERY_DELAY: Duration = Duration::from_secs(1);

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// It is done, for good.
    Processed,
    /// It was done before.
    Duplicate,
}

/// What is to be done for each event.
#[async_trait]
pub trait EventHandler: Send + Sync {
    /// Does it, once however often it is called; an error brings the event again.
    async fn handle(&self, event: &Event) -> Result<Handled, Box<dyn std::error::Error + Send + Sync>>;
}

/// A place among the events of a topic. Without NATS it is one among the events that this process tells from now on.
pub struct Consumer {
    /// The name that the broker knows it by; also the label of its metrics.
    pub name: &'static str,
    /// What it reads.
    pub topic: Topic,
    /// Where from.
    pub broker: Broker,
    /// What it does.
    pub handler: Arc<dyn EventHandler>,
}

impl Consumer {
    /// Works until `shutdown`; the event at hand is finished.
    pub async fn run(self, shutdown: CancellationToken) {
        match self.broker.nats().cloned() {
            Some(nats) => Box::pin(self.consume_nats(&nats, &shutdown)).await,
            None => self.consume_in_memory(self.broker.subscribe(self.topic), &shutdown).await,
        }
    }

    async fn consume_in_memory(&self, mut events: Subscription, shutdown: &CancellationToken) {
        while let Some(item) = shutdown.run_until_cancelled(events.next()).await {
            let SubscriptionItem::Event(event) = item else { continue };
            while !self.handle(&event, "process").await {
                if shutdown.run_until_cancelled(wait_before_retry()).await.is_none() {
                    return;
                }
            }
        }
    }

    async fn consume_nats(&self, nats: &NatsBroker, shutdown: &CancellationToken) {
        loop {
            match shutdown.run_until_cancelled(Box::pin(self.open(nats))).await {
                None => return,
                Some(Ok(messages)) => self.read(messages, shutdown).await,
                Some(Err(error)) => tracing::debug!(consumer = self.name, error, "no events can be read, it is tried again"),
            }
            if shutdown.run_until_cancelled(wait_before_retry()).await.is_none() {
                return;
            }
        }
    }

    async fn open(&self, nats: &NatsBroker) -> Result<pull::Stream, String> {
        let context = nats.stream(self.topic).await?;
        let stream = context.get_stream(self.topic.stream).await.map_err(|error| error.to_string())?;
        let config = pull::Config {
            durable_name: Some(self.name.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            filter_subject: self.topic.subjects.to_owned(),
            // One after another: an event overtakes none of its subject.
            max_ack_pending: 1,
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(self.name, config).await.map_err(|error| error.to_string())?;
        consumer.messages().await.map_err(|error| error.to_string())
    }

    async fn read(&self, mut messages: pull::Stream, shutdown: &CancellationToken) {
        while let Some(Some(message)) = shutdown.run_until_cancelled(messages.next()).await {
            match message {
                Ok(message) => self.consume(&message).await,
                Err(error) => {
                    tracing::debug!(consumer = self.name, %error, "the events break off");
                    return;
                }
            }
        }
    }

    async fn consume(&self, message: &jetstream::Message) {
        let ack = match Event::from_json(&message.payload) {
            Ok(event) if self.handle(&event, NATS_SYSTEM).await => AckKind::Ack,
            Ok(_) => AckKind::Nak(Some(jitter::jittered(REDELIVERY_DELAY, 0.5, jitter::random_unit))),
            Err(error) => {
                tracing::warn!(consumer = self.name, %error, "what came is no event and is put aside");
                counter!("palisade.events.consumed", "consumer" => self.name, "outcome" => "malformed").increment(1);
                AckKind::Term
            }
        };
        // Lost, the event comes again, and does nothing.
        if let Err(error) = message.double_ack_with(ack).await {
            tracing::debug!(consumer = self.name, error, "an answer to the broker was lost");
        }
    }

    /// Whether the event is done with.
    async fn handle(&self, event: &Event, system: &'static str) -> bool {
        let span = recorded_span!(
            parent: None,
            "process",
            otel.name = format!("process {}", event.kind),
            otel.kind = "consumer",
            otel.status_code = Empty,
            messaging.system = system,
            messaging.operation.name = "process",
            messaging.operation.r#type = "process",
            messaging.destination.name = event.kind,
            messaging.consumer.group.name = self.name,
            messaging.message.id = %event.id,
            error.type = Empty,
        );
        if let Some(trace_parent) = &event.trace_parent {
            trace::link(&span, trace_parent);
        }
        let result = self.handler.handle(event).instrument(span.clone()).await;
        let outcome = match &result {
            Ok(Handled::Processed) => "applied",
            Ok(Handled::Duplicate) => "duplicate",
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", "failed");
                tracing::warn!(consumer = self.name, event_id = %event.id, error = &**error as &dyn std::error::Error, "an event comes again");
                "failed"
            }
        };
        counter!("palisade.events.consumed", "consumer" => self.name, "outcome" => outcome).increment(1);
        result.is_ok()
    }
}

async fn wait_before_retry() {
    tokio::time::sleep(jitter::jittered(REDELIVERY_DELAY, 0.5, jitter::random_unit)).await;
}

//! Durable event consumer: a named position in a topic that the broker stores and all replicas
//! share.
//!
//! Delivery is at least once. An event is redelivered after a crash between its effect and its
//! acknowledgement, and when it was published twice. A handler must therefore be idempotent: it
//! stores the sequence of the event for its subject in the same transaction as the effect, and
//! returns [`Handled::Duplicate`] for any sequence that is not higher.

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
    subscription::{Subscription, SubscriptionItem},
};

/// Maximum duration of a handler call. The broker redelivers the event to another process
/// afterwards.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Delay before an event is redelivered after a handler error, ±50 %.
const REDELIVERY_DELAY: Duration = Duration::from_secs(1);

/// Result of handling an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// Processed durably.
    Processed,
    /// Processed earlier.
    Duplicate,
}

/// Event handler.
#[async_trait]
pub trait EventHandler: Send + Sync {
    /// Processes the event idempotently. After an error the event is redelivered.
    async fn handle(&self, event: &Event) -> Result<Handled, Box<dyn std::error::Error + Send + Sync>>;
}

/// Consumer of a topic. Without NATS it receives only the events that this process publishes from
/// its start on.
pub struct Consumer {
    /// Name of the durable consumer at the broker, and label of its metrics.
    pub name: &'static str,
    /// Topic to consume.
    pub topic: Topic,
    /// Broker to consume from.
    pub broker: Broker,
    /// Handler of the events.
    pub handler: Arc<dyn EventHandler>,
}

impl Consumer {
    /// Consumes events until `shutdown`. The current event is finished first.
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
                Some(Err(error)) => tracing::debug!(consumer = self.name, error, "cannot open the event consumer, retrying"),
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
            // One unacknowledged event at a time keeps the events of a subject in order.
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
                    tracing::debug!(consumer = self.name, %error, "event consumer disconnected");
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
                tracing::warn!(consumer = self.name, %error, "dropped a malformed event");
                counter!("palisade.events.consumed", "consumer" => self.name, "outcome" => "malformed").increment(1);
                AckKind::Term
            }
        };
        // If the acknowledgement is lost, the event is redelivered and handled as a duplicate.
        if let Err(error) = message.double_ack_with(ack).await {
            tracing::debug!(consumer = self.name, error, "event acknowledgement failed");
        }
    }

    /// Handles one event. Returns whether it can be acknowledged.
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
                tracing::warn!(consumer = self.name, event_id = %event.id, error = &**error as &dyn std::error::Error, "event handler failed, event will be redelivered");
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

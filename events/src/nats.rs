//! NATS `JetStream` publisher: one stream per topic, an acknowledgement per event, and
//! deduplication by event id.

use std::{fmt, future::IntoFuture, time::Duration};

use async_nats::{
    Client, ConnectOptions, HeaderMap,
    connection::State,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self,
        context::{ContextBuilder, PublishError, PublishErrorKind},
        stream::{DiscardPolicy, StorageType},
    },
};
use futures_util::future::join_all;
use palisade_middleware::{
    backoff::Backoff,
    config::SecretUrl,
    jitter, redact,
    trace::{self, Scope},
};
use tokio::sync::{Mutex, OnceCell, watch};
use tracing::field::Empty;

use crate::{
    config::Config,
    event::{CONTENT_TYPE, Event, Topic},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time until the broker acknowledges a request or an event.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Backoff before the first reconnect. Doubles with each further attempt.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Result of publishing one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored by the broker, now or earlier (duplicate id).
    Published,
    /// Rejected because of its content, so that a retry cannot help. Contains the broker's message.
    Rejected(String),
    /// No acknowledgement, or an error that does not concern the event. Contains the reason.
    Unavailable(String),
}

/// Client of one NATS server or cluster.
pub(crate) struct Nats {
    url: SecretUrl,
    config: Config,
    connected: OnceCell<(Client, jetstream::Context)>,
    /// Streams that are known to exist.
    streams: Mutex<Vec<&'static str>>,
    /// Counts connects, disconnects and slow-consumer events: each may have caused missed messages.
    reconnects: watch::Sender<u64>,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nats")
    }
}

/// Returns the credentials of the first address that has any: user and password, or a token.
fn credentials(addresses: &[String]) -> Option<(String, Option<String>)> {
    let servers = addresses.iter().filter_map(|address| address.parse::<async_nats::ServerAddr>().ok());
    let mut credentials = servers.filter_map(|server| {
        let password = server.password().map(redact::percent_decoded);
        Some((redact::percent_decoded(server.username()?), password))
    });
    credentials.next()
}

impl Nats {
    pub(crate) fn new(url: SecretUrl, config: &Config) -> Self {
        let (reconnects, streams) = (watch::Sender::new(0), Mutex::default());
        Self { url, config: config.clone(), connected: OnceCell::new(), streams, reconnects }
    }

    /// Returns a receiver that changes whenever subscriptions may have missed events.
    pub(crate) fn reconnects(&self) -> watch::Receiver<u64> {
        self.reconnects.subscribe()
    }

    /// Returns the NATS client. It connects and reconnects in the background, without a limit.
    pub(crate) async fn client(&self) -> Result<&Client, String> {
        Ok(&self.connection().await?.0)
    }

    async fn connection(&self) -> Result<&(Client, jetstream::Context), String> {
        let connect = async || {
            let reconnects = self.reconnects.clone();
            let options = ConnectOptions::new()
                .name("palisade")
                .retry_on_initial_connect()
                .connection_timeout(CONNECT_TIMEOUT)
                .reconnect_delay_callback(|attempts| {
                    let backoff = Backoff::at(INITIAL_BACKOFF, MAX_BACKOFF, u32::try_from(attempts).unwrap_or(u32::MAX));
                    jitter::jittered(backoff, 0.5, jitter::random_unit)
                })
                .event_callback(move |event| {
                    let reconnects = reconnects.clone();
                    async move {
                        match event {
                            async_nats::Event::Connected | async_nats::Event::Disconnected | async_nats::Event::SlowConsumer(_) => {
                                reconnects.send_modify(|count| *count += 1);
                            }
                            // The client logs all events itself.
                            _ => {}
                        }
                    }
                });
            let addresses: Vec<String> = self.url.expose().split(',').map(|address| address.trim().to_owned()).collect();
            // The client ignores the credentials of its addresses.
            let options = match credentials(&addresses) {
                Some((user, Some(password))) => options.user_and_password(user, password),
                Some((token, None)) => options.token(token),
                None => options,
            };
            let client = options.connect(addresses).await.map_err(|error| error.kind().to_string())?;
            let context = ContextBuilder::new().timeout(ACK_TIMEOUT).ack_timeout(ACK_TIMEOUT).build(client.clone());
            Ok((client, context))
        };
        self.connected.get_or_try_init(connect).await
    }

    pub(crate) async fn ping(&self, timeout: Duration) -> Result<(), String> {
        let client = self.client().await?;
        // The first connection may still be in progress.
        let connected = async {
            while client.connection_state() != State::Connected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(timeout, connected).await.map_err(|_| "no connection".to_owned())
    }

    /// Returns the `JetStream` context. Creates the stream of `topic` if it does not exist.
    async fn stream(&self, topic: Topic) -> Result<&jetstream::Context, String> {
        let (client, context) = self.connection().await?;
        if client.connection_state() != State::Connected {
            return Err("no connection".to_owned());
        }
        let mut streams = self.streams.lock().await;
        if !streams.contains(&topic.stream) {
            context.create_or_update_stream(self.stream_config(topic)).await.map_err(|error| error.to_string())?;
            streams.push(topic.stream);
        }
        Ok(context)
    }

    /// Stream settings. `DiscardPolicy::New` rejects new events when the stream is full: they stay
    /// in the outbox, and stored events stay available to their consumers.
    fn stream_config(&self, topic: Topic) -> jetstream::stream::Config {
        let max_bytes = i64::try_from(self.config.stream_max_bytes).unwrap_or(i64::MAX);
        let max_message_size = i32::try_from(self.config.stream_max_event_bytes).unwrap_or(i32::MAX);
        jetstream::stream::Config {
            name: topic.stream.to_owned(),
            subjects: vec![topic.subjects.to_owned()],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_bytes: if max_bytes == 0 { -1 } else { max_bytes },
            max_message_size: if max_message_size == 0 { -1 } else { max_message_size },
            max_age: Duration::from_secs(self.config.stream_max_age_hours.saturating_mul(3_600)),
            duplicate_window: Duration::from_millis(self.config.duplicate_window_ms),
            num_replicas: self.config.stream_replicas,
            ..jetstream::stream::Config::default()
        }
    }

    pub(crate) async fn publish(&self, topic: Topic, events: &[Event]) -> Vec<Outcome> {
        let context = match self.stream(topic).await {
            Ok(context) => context,
            Err(reason) => return vec![Outcome::Unavailable(reason); events.len()],
        };
        let mut acks = Vec::with_capacity(events.len());
        for event in events {
            let span = start_span(event);
            let ack = span.lend(send(context, event)).await;
            acks.push(async move {
                let outcome = match ack {
                    Ok(ack) => outcome(ack.into_future().await.map(drop)),
                    Err(outcome) => outcome,
                };
                record_outcome(&span, &outcome);
                outcome
            });
        }
        let outcomes = join_all(acks).await;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unavailable(_))) {
            // The stream may have been deleted: the next publish creates it again.
            self.streams.lock().await.clear();
        }
        outcomes
    }
}

/// Creates a span in its own trace. It is linked to the request that made the change, and sampled
/// exactly if that request was.
fn start_span(event: &Event) -> Scope {
    let Some(trace_parent) = &event.trace_parent else { return Scope::none() };
    let (kind, id) = (event.kind.clone(), event.id);
    trace::start_root(Some(trace_parent), move || {
        tracing::info_span!(
            "send",
            otel.name = format!("send {kind}"),
            otel.kind = "producer",
            otel.status_code = Empty,
            messaging.system = "nats",
            messaging.operation.name = "send",
            messaging.operation.r#type = "send",
            messaging.destination.name = kind,
            messaging.message.id = %id,
            error.type = Empty,
        )
    })
}

fn record_outcome(span: &Scope, outcome: &Outcome) {
    let error = match outcome {
        Outcome::Published => return,
        Outcome::Rejected(_) => "refused",
        Outcome::Unavailable(_) => "unavailable",
    };
    span.record("otel.status_code", "ERROR");
    span.record("error.type", error);
}

async fn send(context: &jetstream::Context, event: &Event) -> Result<jetstream::context::PublishAckFuture, Outcome> {
    let body = event.to_json().map_err(|error| Outcome::Rejected(error.to_string()))?;
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, event.id.to_string());
    headers.insert("content-type", CONTENT_TYPE);
    if let Some(trace_parent) = trace::current_traceparent() {
        headers.insert("traceparent", trace_parent);
    }
    context.publish_with_headers(event.kind.clone(), headers, body.into()).await.map_err(|error| outcome(Err(error)))
}

/// Maps a publish error to an outcome. 4xx errors are caused by the event and are permanent; all
/// other errors are transient.
fn outcome(result: Result<(), PublishError>) -> Outcome {
    let Err(error) = result else { return Outcome::Published };
    let server_error = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), server_error) {
        (PublishErrorKind::MaxPayloadExceeded, _) => Outcome::Rejected(error.to_string()),
        (_, Some(server_error)) if (400..500).contains(&server_error.code()) => Outcome::Rejected(server_error.to_string()),
        _ => Outcome::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_the_url_are_used() {
        let of = |urls: &str| credentials(&urls.split(',').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("nats://a:4222,tls://b"), None);
        assert_eq!(of("nats://a,nats://app:p%40ss@b:4222"), Some(("app".to_owned(), Some("p@ss".to_owned()))));
        assert_eq!(of("nats://token@a"), Some(("token".to_owned(), None)));
    }
}

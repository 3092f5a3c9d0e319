//! SSE stream of one order. Resumes the upstream call to orders whenever it ends early.

use std::{convert::Infallible, fmt::Write, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use palisade_middleware::{
    backoff::Backoff,
    context::{self, Context},
    jitter,
};
use palisade_proto::orders::v1::{OrderEvent, WatchOrderRequest};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{Code, Status, Streaming};

use crate::{config, orders::body::Order, upstreams::OrdersClient};

/// Initial backoff before resuming; doubles with each attempt.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// SSE comment: ignored by clients.
const HEARTBEAT: &[u8] = b":\n\n";

/// State of one stream. Buffers no events: it reads the next one after the last was sent.
pub(super) struct OrderEventStream {
    orders: OrdersClient,
    /// Request to resume with.
    request: WatchOrderRequest,
    context: Option<Context>,
    upstream: Streaming<OrderEvent>,
    settings: config::OrderEvents,
    heartbeat: Interval,
    /// The `retry` field, sent first.
    retry_preamble: Option<Bytes>,
    is_finished: bool,
}

impl OrderEventStream {
    /// Streams `upstream`, the response to `request`, in the current context.
    pub(super) fn new(
        orders: OrdersClient,
        request: WatchOrderRequest,
        upstream: Streaming<OrderEvent>,
        settings: config::OrderEvents,
    ) -> Self {
        let period = Duration::from_millis(settings.heartbeat_ms);
        let mut heartbeat = interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Jitter: clients that were disconnected together must not reconnect together.
        let retry = jitter::jittered(Duration::from_millis(settings.client_retry_ms), 0.5, jitter::random_unit).as_millis();
        let retry_preamble = Some(Bytes::from(format!("retry: {retry}\n\n")));
        Self { orders, request, context: context::current(), upstream, settings, heartbeat, retry_preamble, is_finished: false }
    }

    /// Converts to the response body.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold(self, |mut events| async {
            let text = events.next().await?;
            Some((Ok(text), events))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(preamble) = self.retry_preamble.take() {
            return Some(preamble);
        }
        while !self.is_finished {
            let message = tokio::select! {
                message = self.upstream.message() => message,
                _ = self.heartbeat.tick() => return Some(Bytes::from_static(HEARTBEAT)),
            };
            match message {
                Ok(Some(event)) => {
                    self.heartbeat.reset();
                    return self.encode_event(event);
                }
                Ok(None) => self.is_finished = true,
                // The call ended, but the order may still change: the client's stream stays open.
                Err(status) if is_transient(&status) => self.upstream = self.resume().await?,
                Err(status) => {
                    tracing::debug!(%status, "order event stream ended");
                    self.is_finished = true;
                }
            }
        }
        None
    }

    fn encode_event(&mut self, event: OrderEvent) -> Option<Bytes> {
        let sequence = event.sequence;
        let order = event.order.and_then(|order| Order::try_from(order).ok())?;
        let mut text = format!("id: {sequence}\nevent: status\ndata: ");
        text.push_str(&serde_json::to_string(&order).ok()?);
        text.write_str("\n\n").ok()?;
        self.request.after_sequence = sequence;
        self.is_finished = order.is_terminal();
        Some(text.into())
    }

    /// Opens another call after the last event. Returns `None` if that fails permanently or takes
    /// too long.
    async fn resume(&mut self) -> Option<Streaming<OrderEvent>> {
        let deadline = Instant::now() + Duration::from_millis(self.settings.upstream_resume_timeout_ms);
        let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
        while Instant::now() < deadline {
            tokio::time::sleep(jitter::jittered(backoff.next_wait(), 0.5, jitter::random_unit)).await;
            let context = self.context.clone().unwrap_or_else(Context::background);
            match context::scope(context, self.orders.watch_order(self.request.clone())).await {
                Ok(response) => return Some(response.into_inner()),
                Err(status) if is_transient(&status) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// Whether the error is transient. A lost connection is reported with several codes.
fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::DeadlineExceeded | Code::ResourceExhausted
    )
}

//! One stream of events: what orders tells, in the words of server-sent events, over however many calls it takes.

use std::{convert::Infallible, fmt::Write, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use palisade_middleware::{
    context::{self, Context},
    jitter,
};
use palisade_proto::orders::v1::{OrderEvent, WatchOrderRequest};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{Code, Status, Streaming};

use super::super::body::Order;
use crate::{config, upstreams::OrdersClient};

/// The pause before the first try to go on; doubles with each.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// A comment: no event, and for nobody to read.
const HEARTBEAT: &[u8] = b":\n\n";

/// Follows an order. Holds one event at a time: it reads the next when the last one was taken.
pub(super) struct OrderEventStream {
    orders: OrdersClient,
    /// What is asked for if orders breaks off.
    request: WatchOrderRequest,
    context: Option<Context>,
    upstream: Streaming<OrderEvent>,
    settings: config::OrderEvents,
    heartbeat: Interval,
    /// What is said first of all.
    retry_preamble: Option<Bytes>,
    is_finished: bool,
}

impl OrderEventStream {
    /// Follows what `upstream` tells in answer to `request`, in the present context.
    pub(super) fn new(
        orders: OrdersClient,
        request: WatchOrderRequest,
        upstream: Streaming<OrderEvent>,
        settings: config::OrderEvents,
    ) -> Self {
        let period = Duration::from_millis(settings.heartbeat_ms);
        let mut heartbeat = interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Those who were sent away together must not come back together.
        let retry = jitter::jittered(Duration::from_millis(settings.client_retry_ms), 0.5, jitter::random_unit).as_millis();
        let greeting = Some(Bytes::from(format!("retry: {retry}\n\n")));
        Self { orders, request, context: context::current(), upstream, settings, heartbeat, retry_preamble: greeting, is_finished: false }
    }

    /// The body.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold(self, |mut following| async {
            let text = following.next().await?;
            Some((Ok(text), following))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.retry_preamble.take() {
            return Some(greeting);
        }
        while !self.is_finished {
            let message = tokio::select! {
                heard = self.upstream.message() => heard,
                _ = self.heartbeat.tick() => return Some(Bytes::from_static(HEARTBEAT)),
            };
            match message {
                Ok(Some(event)) => {
                    self.heartbeat.reset();
                    return self.encode_event(event);
                }
                Ok(None) => self.is_finished = true,
                // It is orders that breaks off, not the order: whoever reads need not know.
                Err(status) if is_transient(&status) => self.upstream = self.resume().await?,
                Err(status) => {
                    tracing::debug!(%status, "orders tells no more");
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

    /// Another call that goes on after the last event; `None` if none is to be had.
    async fn resume(&mut self) -> Option<Streaming<OrderEvent>> {
        let deadline = Instant::now() + Duration::from_millis(self.settings.upstream_resume_timeout_ms);
        let mut backoff = INITIAL_BACKOFF;
        while Instant::now() < deadline {
            tokio::time::sleep(jitter::jittered(backoff, 0.5, jitter::random_unit)).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            let context = self.context.clone().unwrap_or_else(Context::background);
            match context::scope(context, self.orders.watch_order(self.request.clone())).await {
                Ok(answer) => return Some(answer.into_inner()),
                Err(status) if is_transient(&status) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// Whether the fault is the way's or the service's. That a connection broke has more than one code.
fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::DeadlineExceeded | Code::ResourceExhausted
    )
}

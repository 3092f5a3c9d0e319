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
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A comment: no event, and for nobody to read.
const HEARTBEAT: &[u8] = b":\n\n";

/// Follows an order. Holds one event at a time: it reads the next when the last one was taken.
pub(super) struct Following {
    orders: OrdersClient,
    /// What is asked for if orders breaks off.
    request: WatchOrderRequest,
    context: Option<Context>,
    upstream: Streaming<OrderEvent>,
    settings: config::OrderEvents,
    heartbeat: Interval,
    /// What is said first of all.
    greeting: Option<Bytes>,
    over: bool,
}

impl Following {
    /// Follows what `upstream` tells in answer to `request`, in the present context.
    pub(super) fn new(
        orders: OrdersClient,
        request: WatchOrderRequest,
        upstream: Streaming<OrderEvent>,
        settings: config::OrderEvents,
    ) -> Self {
        let every = Duration::from_millis(settings.heartbeat_ms);
        let mut heartbeat = interval_at(Instant::now() + every, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Those who were sent away together must not come back together.
        let retry = jitter::around(Duration::from_millis(settings.retry_ms), 0.5, jitter::draw).as_millis();
        let greeting = Some(Bytes::from(format!("retry: {retry}\n\n")));
        Self { orders, request, context: context::current(), upstream, settings, heartbeat, greeting, over: false }
    }

    /// The body.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold(self, |mut following| async {
            let text = following.next().await?;
            Some((Ok(text), following))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        while !self.over {
            let heard = tokio::select! {
                heard = self.upstream.message() => heard,
                _ = self.heartbeat.tick() => return Some(Bytes::from_static(HEARTBEAT)),
            };
            match heard {
                Ok(Some(event)) => {
                    self.heartbeat.reset();
                    return self.tell(event);
                }
                Ok(None) => self.over = true,
                // It is orders that breaks off, not the order: whoever reads need not know.
                Err(status) if is_worth_another_try(&status) => self.upstream = self.resume().await?,
                Err(status) => {
                    tracing::debug!(%status, "orders tells no more");
                    self.over = true;
                }
            }
        }
        None
    }

    fn tell(&mut self, event: OrderEvent) -> Option<Bytes> {
        let sequence = event.sequence;
        let order = event.order.and_then(|order| Order::try_from(order).ok())?;
        let mut text = format!("id: {sequence}\nevent: status\ndata: ");
        text.push_str(&serde_json::to_string(&order).ok()?);
        text.write_str("\n\n").ok()?;
        self.request.after_sequence = sequence;
        self.over = order.is_at_its_end();
        Some(text.into())
    }

    /// Another call that goes on after the last event; `None` if none is to be had.
    async fn resume(&mut self) -> Option<Streaming<OrderEvent>> {
        let give_up = Instant::now() + Duration::from_millis(self.settings.resume_ms);
        let mut pause = PAUSE;
        while Instant::now() < give_up {
            tokio::time::sleep(jitter::around(pause, 0.5, jitter::draw)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let context = self.context.clone().unwrap_or_else(Context::background);
            match context::scope(context, self.orders.watch_order(self.request.clone())).await {
                Ok(answer) => return Some(answer.into_inner()),
                Err(status) if is_worth_another_try(&status) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// Whether the fault is the way's or the service's. That a connection broke has more than one code.
fn is_worth_another_try(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::DeadlineExceeded | Code::ResourceExhausted
    )
}

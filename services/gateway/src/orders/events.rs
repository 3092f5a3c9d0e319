//! `/orders/{id}/events`: server-sent events (HTML living standard, section 9.2), one for each status of an order.

mod stream;

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use palisade_middleware::rejection::{Rejection, reasons};
use palisade_proto::orders::v1::{FindOneRequest, WatchOrderRequest};

use self::stream::OrderEventStream;
use super::{NO_STORE, body::Order};
use crate::{
    extract::{self, Id},
    problem,
    upstreams::Upstreams,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Metadata of orders: the order is at its end, and the caller has seen it.
const ENDED: &str = "order-ended";
/// Asks a proxy not to hold back what it has (nginx).
const NO_PROXY_BUFFERING: (HeaderName, HeaderValue) = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The `id` of the last event that the caller has; 0 without one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastEventId(i64);

/// Follow an order.
///
/// Server-sent events: how the order stands, then each change of its status as it comes, and the end of the stream after FAILED, COMPLETED or
/// CANCELLED. Each event has `event: status`, the order of that moment as `data`, and as `id` a number that counts the statuses of this order from
/// 1, the same whichever replica is asked. A stream may end before the order does (after some minutes, or when a server is replaced): open it
/// again with `Last-Event-ID`, as browsers do by themselves, and it goes on with what came after. An id that the order has not reached begins with
/// how it stands now. A comment comes every 15 seconds when there is nothing to tell. Another user's order answers as one that does not exist.
#[utoipa::path(get, path = "/orders/{id}/events", operation_id = "followOrder", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(
        ("id" = String, Path, format = Uuid, description = "The order's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that was received", example = "2")),
    responses(
        (status = 200, body = Order, content_type = "text/event-stream", description = "Events, each with an order as `data`"),
        (status = 204, description = "There is nothing left to tell: the order is at its end, and `Last-Event-ID` is that of its last event"),
    ))]
pub(crate) async fn events(
    State(Upstreams { mut orders, events, .. }): State<Upstreams>,
    Id(id): Id,
    LastEventId(after_sequence): LastEventId,
    verb: Method,
) -> Result<Response, Rejection> {
    let head = [(CACHE_CONTROL, HeaderValue::from_static(NO_STORE)), (CONTENT_TYPE, EVENT_STREAM), NO_PROXY_BUFFERING];
    if verb == Method::HEAD {
        // The answer to GET without its body, for which no stream is opened.
        let order = orders.find_one(FindOneRequest { id: id.to_string() }).await.map_err(problem::rejection)?.into_inner();
        Order::try_from(order)?;
        return Ok(head.into_response());
    }
    let request = WatchOrderRequest { id: id.to_string(), after_sequence };
    let answer = orders.watch_order(request.clone()).await.map_err(problem::rejection)?;
    if answer.metadata().contains_key(ENDED) {
        // What tells a browser to open it no more.
        return Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, NO_STORE)]).into_response());
    }
    let stream = OrderEventStream::new(orders, request, answer.into_inner(), events);
    Ok((head, Body::from_stream(stream.into_stream())).into_response())
}

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        // An empty one is what a client has that received no id.
        let Some(value) = extract::single_value(&parts.headers, &LAST_EVENT_ID)?.filter(|value| !value.is_empty()) else { return Ok(Self(0)) };
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let id = digits.and_then(|digits| digits.parse().ok());
        id.map(Self)
            .ok_or_else(|| Rejection::new(&reasons::INVALID_PARAMETER, "header last-event-id must be the id of an event of this order"))
    }
}

//! `/orders/{id}/events`: server-sent events (HTML living standard, section 9.2), one for each
//! status of an order.

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
use crate::{
    extract::{self, Id, LAST_EVENT_ID, NO_STORE, Preconditions, Read},
    orders::body::Order,
    problem,
    upstreams::Upstreams,
};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Maximum length of an event id, digits. Each number of this length fits in 64 bits.
const MAX_DIGITS: usize = 18;
/// Response metadata of orders: the order is in a terminal state and the client has received its
/// last event.
const ENDED: &str = "order-ended";
/// Disables response buffering in reverse proxies (nginx).
const NO_PROXY_BUFFERING: (HeaderName, HeaderValue) = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// The `id` of the last event that the client received, 0 if the header is absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastEventId(i64);

/// Stream the status changes of an order
///
/// Server-sent events. The first event is the current status, followed by each status change. The
/// stream ends after FAILED, COMPLETED or CANCELLED.
///
/// Each event has `event: status`, the order at that time as `data`, and as `id` the sequence
/// number of the status, counted from 1 and equal in all replicas.
///
/// A stream may end earlier, after some minutes or during a deployment. Reconnect with
/// `Last-Event-ID`, as browsers do automatically, to receive the events after that id. An id that
/// the order has not reached yields the current status.
///
/// A stream also ends when its token expires or is revoked. Its last event is then `event: error`
/// with the problem document as `data`; reconnect with a new token.
///
/// A comment is sent every 15 seconds on an idle stream. The order of another user is reported as
/// `not_found`.
#[utoipa::path(get, path = "/orders/{id}/events", operation_id = "followOrder", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(
        ("id" = String, Path, format = Uuid, description = "Id of the order"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event received; empty for none", example = "2")),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Event stream, each event with an `Order` in JSON as `data`"),
        (status = 204, description = "No further events: the order is in a terminal state and `Last-Event-ID` is its last event"),
    ))]
pub(crate) async fn events(
    State(Upstreams { mut orders, events, .. }): State<Upstreams>,
    Id(id): Id,
    LastEventId(after_sequence): LastEventId,
    preconditions: Preconditions,
    method: Method,
) -> Result<Response, Rejection> {
    let headers = [(CACHE_CONTROL, HeaderValue::from_static(NO_STORE)), (CONTENT_TYPE, EVENT_STREAM), NO_PROXY_BUFFERING];
    if method == Method::HEAD {
        // HEAD: the headers of GET, without opening a stream.
        let order = orders.find_one(FindOneRequest { id: id.to_string() }).await.map_err(problem::rejection)?.into_inner();
        Order::try_from(order)?;
        return Ok(match preconditions.check_read(None)? {
            Read::Changed => headers.into_response(),
            Read::NotModified => (StatusCode::NOT_MODIFIED, [(CACHE_CONTROL, NO_STORE)]).into_response(),
        });
    }
    let request = WatchOrderRequest { id: id.to_string(), after_sequence };
    let response = orders.watch_order(request.clone()).await.map_err(problem::rejection)?;
    if preconditions.check_read(None)? == Read::NotModified {
        return Ok((StatusCode::NOT_MODIFIED, [(CACHE_CONTROL, NO_STORE)]).into_response());
    }
    if response.metadata().contains_key(ENDED) {
        // 204 stops browsers from reconnecting.
        return Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, NO_STORE)]).into_response());
    }
    let stream = OrderEventStream::new(orders, request, response.into_inner(), events);
    Ok((headers, Body::from_stream(stream.into_stream())).into_response())
}

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        // A client that has received no id sends an empty one.
        let Some(value) = extract::single_value(&parts.headers, &LAST_EVENT_ID)?.filter(|value| !value.is_empty()) else {
            return Ok(Self(0));
        };
        let digits =
            std::str::from_utf8(value).ok().filter(|text| text.len() <= MAX_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()));
        let id = digits.and_then(|digits| digits.parse().ok());
        id.map(Self)
            .ok_or_else(|| Rejection::new(&reasons::INVALID_PARAMETER, "header last-event-id must be the id of an event of this order"))
    }
}

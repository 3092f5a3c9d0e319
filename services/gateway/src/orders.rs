//! HTTP handlers of `/orders`.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, LOCATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use palisade_middleware::rejection::Rejection;
use palisade_proto::orders::v1::{FindAllRequest, FindOneRequest, RemoveRequest, UpdateStatusRequest};

use crate::{
    extract::{self, Id, IdempotencyKey, Query},
    problem::{self, Problem, merge_violations, replay_header},
    upstreams::Upstreams,
};

mod body;
mod events;

use body::{Filters, NewOrder, NewStatus, Order, OrderPage};
pub(crate) use events::{__path_events, events};

/// Orders change asynchronously and belong to one user.
const NO_STORE: &str = "no-store";

/// Suggested polling interval while the saga of an order is running, seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Place an order
///
/// Reserves the stock of all lines, or of none. Lines of the same product are merged. With an
/// `Idempotency-Key`, the request can be repeated for 24 hours and places one order. The key of a
/// failed order stays in use, so a new attempt needs a new key.
#[utoipa::path(post, path = "/orders", operation_id = "createOrder", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255, description = "Client-generated key of this request: visible ASCII, quoted or bare", example = "4be1c5c4-6f7c")),
    request_body = NewOrder,
    responses(
        (status = 201, body = Order, description = "The order is confirmed", headers(
            ("Location" = String, description = "Path of the order"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored response of an earlier request with this key"))),
        (status = 202, body = Order, description = "The order is accepted and will be confirmed or fail asynchronously", headers(
            ("Location" = String, description = "Path of the order"),
            ("Retry-After" = i32, description = "Polling interval in seconds"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored response of an earlier request with this key"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`insufficient_stock`, `reservation_expired` or `products_unavailable`: the order failed, its id is `orderId`; `request_in_progress`: the first request with this key is still running"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "`unknown_product` or `product_inactive`: the order failed, its id is `orderId`; `idempotency_key_reused`: the key was used with another body"),
    ))]
pub(crate) async fn create(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    extract::Json(order): extract::Json<NewOrder>,
) -> Result<Response, Rejection> {
    let (request, violations) = order.into_proto(idempotency_key.clone());
    let result = merge_violations(orders.create_order(extract::retryable_with_key(request, &idempotency_key)).await, violations);
    extract::record_key_outcome(&idempotency_key, &result);
    let response = result?;
    let replay_header = replay_header(&response);
    let order = Order::try_from(response.into_inner())?;
    let headers = [(LOCATION, order.path()), (CACHE_CONTROL, NO_STORE.to_owned())];
    if order.is_saga_finished() {
        Ok((StatusCode::CREATED, headers, replay_header, Json(order)).into_response())
    } else {
        Ok((StatusCode::ACCEPTED, headers, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], replay_header, Json(order)).into_response())
    }
}

/// List orders
///
/// Newest first, with cursor pagination.
#[utoipa::path(get, path = "/orders", operation_id = "listOrders", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(Filters),
    responses((status = 200, body = OrderPage, description = "A page of orders")))]
pub(crate) async fn list(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    Query(filters): Query<Filters>,
) -> Result<Response, Rejection> {
    let page = orders.find_all(FindAllRequest::from(filters)).await.map_err(problem::from_query_status)?.into_inner();
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(OrderPage::try_from(page)?)).into_response())
}

/// Get an order
///
/// The order of another user is reported as `not_found`.
#[utoipa::path(get, path = "/orders/{id}", operation_id = "findOrder", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the order")),
    responses((status = 200, body = Order, description = "The order")))]
pub(crate) async fn find(State(Upstreams { mut orders, .. }): State<Upstreams>, Id(id): Id) -> Result<Response, Rejection> {
    let order = orders.find_one(FindOneRequest { id: id.to_string() }).await.map_err(problem::rejection)?.into_inner();
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(Order::try_from(order)?)).into_response())
}

/// Cancel or complete an order
///
/// The owner may cancel an order; completing it requires the scope `orders:admin`. Setting the
/// current status again succeeds and changes nothing.
#[utoipa::path(put, path = "/orders/{id}/status", operation_id = "setOrderStatus", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the order")),
    request_body = NewStatus,
    responses(
        (status = 200, body = Order, description = "The order with the requested status"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`illegal_transition`: the status cannot be set; the possible ones are in `allowed`"),
    ))]
pub(crate) async fn set_status(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    Id(id): Id,
    extract::Json(body): extract::Json<NewStatus>,
) -> Result<Response, Rejection> {
    let status = body.into_proto()?.into();
    let order = orders.update_status(UpdateStatusRequest { id: id.to_string(), status }).await.map_err(problem::rejection)?.into_inner();
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(Order::try_from(order)?)).into_response())
}

/// Delete an order
///
/// Only an order in a terminal state (FAILED, COMPLETED, CANCELLED) can be deleted.
#[utoipa::path(delete, path = "/orders/{id}", operation_id = "removeOrder", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the order")),
    responses(
        (status = 204, description = "The order is deleted"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`order_in_progress`: only a FAILED, COMPLETED or CANCELLED order can be deleted"),
    ))]
pub(crate) async fn remove(State(Upstreams { mut orders, .. }): State<Upstreams>, Id(id): Id) -> Result<StatusCode, Rejection> {
    orders.remove(RemoveRequest { id: id.to_string() }).await.map_err(problem::rejection)?;
    Ok(StatusCode::NO_CONTENT)
}

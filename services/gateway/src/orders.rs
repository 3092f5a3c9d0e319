//! `/orders`.

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
    openapi::Problem,
    problem::{self, is_replayed, merge_violations},
    upstreams::Upstreams,
};

mod body;
mod events;

use body::{Filters, NewOrder, NewStatus, Order, OrderPage};
pub(crate) use events::{__path_events, events};

/// An order changes by itself, and is nobody else's business.
const NO_STORE: &str = "no-store";

/// When to look again at an order that is not settled, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Place an order.
///
/// The stock of all lines is reserved or none. Lines of the same product count as one. With an `Idempotency-Key` the same request can be sent
/// again for 24 hours and places one order; a refused order keeps its key, so a new attempt needs a new one.
#[utoipa::path(post, path = "/orders", operation_id = "createOrder", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255, description = "Visible ASCII, quoted or bare", example = "4be1c5c4-6f7c")),
    request_body = NewOrder,
    responses(
        (status = 201, body = Order, description = "Confirmed", headers(
            ("Location" = String, description = "Path of the order"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored answer to an earlier request"))),
        (status = 202, body = Order, description = "Accepted; it will be confirmed or fail by itself", headers(
            ("Location" = String, description = "Path of the order"),
            ("Retry-After" = i32, description = "Seconds until it is worth looking again"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored answer to an earlier request"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`insufficient_stock`, `reservation_expired` or `products_unavailable`, with the `orderId` of the order that failed; `request_in_progress`: the first request with this key is still running"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "`unknown_product` or `product_inactive`, with the `orderId` of the order that failed; `idempotency_key_reused`: the key was used with another body"),
    ))]
pub(crate) async fn create(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    extract::Json(order): extract::Json<NewOrder>,
) -> Result<Response, Rejection> {
    let (request, violations) = order.into_proto(idempotency_key.clone());
    let answer = merge_violations(orders.create_order(extract::retryable_with_key(request, &idempotency_key)).await, violations);
    extract::record_key_outcome(&idempotency_key, &answer);
    let answer = answer?;
    let replayed = is_replayed(&answer);
    let order = Order::try_from(answer.into_inner())?;
    let headers = [(LOCATION, order.path()), (CACHE_CONTROL, NO_STORE.to_owned())];
    if order.is_settled() {
        Ok((StatusCode::CREATED, headers, replayed, Json(order)).into_response())
    } else {
        Ok((StatusCode::ACCEPTED, headers, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], replayed, Json(order)).into_response())
    }
}

/// List orders, newest first.
#[utoipa::path(get, path = "/orders", operation_id = "listOrders", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(Filters),
    responses((status = 200, body = OrderPage, description = "One page")))]
pub(crate) async fn list(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    Query(filters): Query<Filters>,
) -> Result<Response, Rejection> {
    let page = orders.find_all(FindAllRequest::from(filters)).await.map_err(problem::from_query_status)?.into_inner();
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(OrderPage::try_from(page)?)).into_response())
}

/// Read an order.
///
/// Another user's order answers as one that does not exist.
#[utoipa::path(get, path = "/orders/{id}", operation_id = "findOrder", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "The order's id")),
    responses((status = 200, body = Order, description = "The order")))]
pub(crate) async fn find(State(Upstreams { mut orders, .. }): State<Upstreams>, Id(id): Id) -> Result<Response, Rejection> {
    let order = orders.find_one(FindOneRequest { id: id.to_string() }).await.map_err(problem::rejection)?.into_inner();
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(Order::try_from(order)?)).into_response())
}

/// Cancel or complete an order.
///
/// Its owner may cancel it; only `orders:admin` may complete it. The status it has already is accepted and changes nothing.
#[utoipa::path(put, path = "/orders/{id}/status", operation_id = "setOrderStatus", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "The order's id")),
    request_body = NewStatus,
    responses(
        (status = 200, body = Order, description = "The order with this status"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`illegal_transition`, with the statuses that are `allowed`"),
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

/// Remove an order that is at its end.
#[utoipa::path(delete, path = "/orders/{id}", operation_id = "removeOrder", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "The order's id")),
    responses(
        (status = 204, description = "Removed"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`order_in_progress`: only a FAILED, COMPLETED or CANCELLED order can be removed"),
    ))]
pub(crate) async fn remove(State(Upstreams { mut orders, .. }): State<Upstreams>, Id(id): Id) -> Result<StatusCode, Rejection> {
    orders.remove(RemoveRequest { id: id.to_string() }).await.map_err(problem::rejection)?;
    Ok(StatusCode::NO_CONTENT)
}

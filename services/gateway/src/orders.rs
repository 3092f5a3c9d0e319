//! HTTP handlers of `/orders`.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, ETAG, LOCATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use palisade_middleware::rejection::Rejection;
use palisade_proto::orders::v1::{FindAllRequest, FindOneRequest, RemoveRequest, UpdateStatusRequest};
use uuid::Uuid;

use crate::{
    cache::Changes,
    extract::{self, Id, IdempotencyKey, NO_STORE, Preconditions, Query, Read, etag},
    problem::{self, Problem, merge_violations, replay_header},
    upstreams::Upstreams,
};

mod body;
mod events;
mod filters;
mod history;

use body::{NewOrder, NewStatus, Order, OrderPage, OrderRevision};
pub(crate) use events::{__path_events, events};
use filters::Filters;
pub(crate) use history::{__path_history, history};

/// Suggested polling interval while the saga of an order is running, seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Place an order
///
/// Reserves the stock of all lines, or of none. Lines of the same product are merged. With an
/// `Idempotency-Key`, the request can be repeated for 24 hours and places one order. The key of a
/// failed order stays in use, so a new attempt needs a new key. With `maxTotal`, the order fails if
/// prices have risen above it.
#[utoipa::path(post, path = "/orders", operation_id = "createOrder", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    request_body = NewOrder,
    responses(
        (status = 201, body = Order, description = "The order is confirmed", headers(
            ("Location" = String, description = "Path of the order"),
            ("ETag" = String, description = "Version of the order, in quotes"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored response of an earlier request with this key"))),
        (status = 202, body = Order, description = "The order is accepted and will be confirmed or fail asynchronously", headers(
            ("Location" = String, description = "Path of the order"),
            ("ETag" = String, description = "Version of the order, in quotes"),
            ("Retry-After" = i32, description = "Polling interval in seconds"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored response of an earlier request with this key"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`insufficient_stock`, `price_changed`, `reservation_expired` or `products_unavailable`: the order failed, its id is `orderId`; `request_in_progress`: the first request with this key is still running"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "`unknown_product` or `product_inactive`: the order failed, its id is `orderId`; `idempotency_key_reused`: the key was used with another body"),
    ))]
pub(crate) async fn create(
    State(Upstreams { mut orders, cache, .. }): State<Upstreams>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    preconditions: Preconditions,
    extract::Json(order): extract::Json<NewOrder>,
) -> Result<Response, Rejection> {
    preconditions.check_post()?;
    let products = order.products();
    let (request, violations) = order.into_proto(idempotency_key.clone());
    let request = extract::retryable_with_key(request, &idempotency_key);
    let changes = Changes::of_stock(products.iter().copied());
    let write = Box::pin(async move { Ok((changes, merge_violations(orders.create_order(request).await, violations)?)) });
    let result = cache.invalidate_after(products, write).await;
    extract::record_key_outcome(&idempotency_key, &result);
    let response = result?;
    let replay_header = replay_header(&response);
    let order = Order::try_from(response.into_inner())?;
    let (path, is_saga_finished) = ([(LOCATION, order.path())], order.is_saga_finished());
    if is_saga_finished {
        Ok((StatusCode::CREATED, path, replay_header, representation(order)).into_response())
    } else {
        Ok((StatusCode::ACCEPTED, path, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], replay_header, representation(order)).into_response())
    }
}

/// List orders
///
/// Newest first, with cursor pagination. With the scope `orders:admin`, the list includes deleted
/// orders.
#[utoipa::path(get, path = "/orders", operation_id = "listOrders", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(Filters),
    responses((status = 200, body = OrderPage, description = "A page of orders")))]
pub(crate) async fn list(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    Query(filters): Query<Filters>,
    preconditions: Preconditions,
) -> Result<Response, Rejection> {
    let page = orders.find_all(FindAllRequest::from(filters)).await.map_err(problem::from_query_status)?.into_inner();
    preconditions.unstored(OrderPage::try_from(page)?)
}

/// Get an order
///
/// The order of another user is reported as `not_found`.
#[utoipa::path(get, path = "/orders/{id}", operation_id = "findOrder", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the order")),
    responses((status = 200, body = Order, description = "The order", headers(("ETag" = String, description = "Version of the order, in quotes")))))]
pub(crate) async fn find(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<Response, Rejection> {
    let order = orders.find_one(FindOneRequest { id: id.to_string() }).await.map_err(problem::rejection)?.into_inner();
    let order = Order::try_from(order)?;
    match preconditions.check_read(order.tag().as_deref())? {
        Read::Changed => Ok(representation(order).into_response()),
        Read::NotModified => Ok((StatusCode::NOT_MODIFIED, headers(&order)).into_response()),
    }
}

/// Revise an order
///
/// Replaces the items of a CONFIRMED order. The stock of additional units is held before units that
/// are left over are given back. An item whose quantity does not change keeps its price; the others
/// get the current one. A revision that is refused leaves the order as it was. Repeating a revision
/// changes nothing.
#[utoipa::path(put, path = "/orders/{id}", operation_id = "reviseOrder", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the order")),
    request_body = OrderRevision,
    responses(
        (status = 200, body = Order, description = "The revised order",
            headers(("ETag" = String, description = "Version of the order, in quotes"))),
        (status = 202, body = Order, description = "The outcome is not known yet. `revision` shows the requested items until it is.", headers(
            ("Location" = String, description = "Path of the order"),
            ("ETag" = String, description = "Version of the order, in quotes"),
            ("Retry-After" = i32, description = "Polling interval in seconds"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`insufficient_stock` or `price_changed`: the order is unchanged; `illegal_transition`: only a CONFIRMED order can be revised; `revision_in_progress`: another revision is pending; `too_many_revisions`: an order can be revised about 50 times; `conflict`: the order was changed during its revision"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "`unknown_product` or `product_inactive`: the order is unchanged"),
    ))]
pub(crate) async fn revise(
    State(Upstreams { mut orders, cache, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
    extract::Json(revision): extract::Json<OrderRevision>,
) -> Result<Response, Rejection> {
    let products = revision.products();
    let (request, violations) = revision.into_proto(id, preconditions.to_proto());
    let write = Box::pin(async move {
        let revised = merge_violations(orders.revise_order(request).await, violations)?.into_inner();
        let changed = revised.changed_product_ids.iter().filter_map(|id| id.parse().ok()).collect::<Vec<Uuid>>();
        Ok((Changes::of_stock(changed), Order::try_from(revised.order.unwrap_or_default())?))
    });
    let order = cache.invalidate_after(products, write).await?;
    if order.is_being_revised() {
        let path = [(LOCATION, order.path())];
        Ok((StatusCode::ACCEPTED, path, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], representation(order)).into_response())
    } else {
        Ok(representation(order).into_response())
    }
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
        (status = 200, body = Order, description = "The order with the requested status",
            headers(("ETag" = String, description = "Version of the order, in quotes"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`illegal_transition`: the status cannot be set; the possible ones are in `allowed`"),
    ))]
pub(crate) async fn set_status(
    State(Upstreams { mut orders, cache, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
    extract::Json(body): extract::Json<NewStatus>,
) -> Result<Response, Rejection> {
    let request = UpdateStatusRequest { id: id.to_string(), status: body.into_proto()?.into(), preconditions: preconditions.to_proto() };
    let write = Box::pin(async move {
        let order = orders.update_status(request).await.map_err(problem::rejection)?.into_inner();
        let order = Order::try_from(order)?;
        Ok((Changes::of_stock(order.products()), order))
    });
    // The lines are unknown until the service returns them.
    Ok(representation(cache.invalidate_after(Vec::new(), write).await?).into_response())
}

/// Delete an order
///
/// Only an order in a terminal state (FAILED, COMPLETED, CANCELLED) can be deleted. Its owner no
/// longer sees it. With the scope `orders:admin` it stays visible until its retention ends, with
/// `removedAt` and `removedBy`.
#[utoipa::path(delete, path = "/orders/{id}", operation_id = "removeOrder", tag = "orders",
    security(("bearer" = ["orders:write"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the order")),
    responses(
        (status = 204, description = "The order is deleted"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`order_in_progress`: only a FAILED, COMPLETED or CANCELLED order can be deleted"),
    ))]
pub(crate) async fn remove(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<StatusCode, Rejection> {
    let request = RemoveRequest { id: id.to_string(), preconditions: preconditions.to_proto() };
    orders.remove(request).await.map_err(problem::rejection)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the order with its entity tag.
fn representation(order: Order) -> impl IntoResponse {
    (headers(&order), Json(order))
}

fn headers(order: &Order) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(NO_STORE));
    if let Some(tag) = order.tag().and_then(|tag| HeaderValue::try_from(etag(tag)).ok()) {
        headers.insert(ETAG, tag);
    }
    headers
}

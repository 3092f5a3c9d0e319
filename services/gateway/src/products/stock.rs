//! HTTP handlers of `/products/{id}/stock-adjustments`.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use palisade_middleware::rejection::{Rejection, Violation};
use palisade_proto::products::v1::{self as proto, AdjustStockRequest, ListStockAdjustmentsRequest, StockAdjustmentKind};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
};

use crate::{
    cache::Changes,
    extract::{self, Id, IdempotencyKey, Integer, Limit, Preconditions, Query, non_null},
    problem::{self, Problem, merge_violations, replay_header},
    text::non_empty,
    timestamp,
    upstreams::Upstreams,
};

/// Number of units that the service always rejects.
const NEVER_VALID: i64 = 0;

/// A stock adjustment to make. Unknown fields are rejected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewStockAdjustment {
    /// Units to add, negative for units to remove. Not 0.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(schema_with = delta_schema, required = true)]
    delta: Option<Integer>,
    /// 1 to 200 characters after trimming.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = String, required = true, min_length = 1, example = "damaged")]
    reason: Option<String>,
}

/// An entry of the stock ledger: one change of the units of a product, reserved ones included.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StockAdjustment {
    #[schema(format = Uuid)]
    id: String,
    #[schema(format = Uuid)]
    product_id: String,
    #[schema(inline)]
    kind: Kind,
    /// Units added, negative for units removed.
    #[schema(example = -3)]
    delta: i64,
    /// Empty unless a user gave one.
    #[schema(example = "damaged")]
    reason: String,
    /// Units available for sale after the change.
    #[schema(example = 117)]
    quantity_after: i64,
    /// Subject of the user that made the change; `null` for the service itself.
    #[schema(required = true)]
    actor: Option<String>,
    /// Order of a `fulfilment`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Uuid, required = false, nullable = false)]
    order_id: Option<String>,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    created_at: String,
}

/// `opening`: stock at the creation of the product, or the sum of all older entries. `set`:
/// quantity set by a `PUT` or `PATCH`. `adjustment`: adjustment by a user. `fulfilment`: units of
/// a completed order. `reconciled`: recorded later.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Opening,
    Set,
    Adjustment,
    Fulfilment,
    Reconciled,
}

/// One page of the stock ledger.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StockAdjustmentPage {
    items: Vec<StockAdjustment>,
    /// Cursor of the next page; `null` on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// Page of the stock ledger.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LedgerPage {
    /// Maximum number of entries on the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<Limit>,
    /// `nextCursor` of the previous page of the same ledger.
    cursor: Option<String>,
}

/// Two ranges: JSON Schema has no keyword for "not 0".
fn delta_schema() -> Schema {
    let range = |min: i64, max: i64| ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(Some(max));
    let description = "Units to add, negative for units to remove. Not 0.";
    let ranges = OneOfBuilder::new().item(range(-1_000_000_000, -1)).item(range(1, 1_000_000_000));
    ranges.description(Some(description)).examples([serde_json::json!(-3)]).build().into()
}

impl TryFrom<proto::StockAdjustment> for StockAdjustment {
    type Error = Rejection;

    fn try_from(entry: proto::StockAdjustment) -> Result<Self, Rejection> {
        let kind = match entry.kind() {
            StockAdjustmentKind::Opening => Kind::Opening,
            StockAdjustmentKind::Set => Kind::Set,
            StockAdjustmentKind::Adjustment => Kind::Adjustment,
            StockAdjustmentKind::Fulfilment => Kind::Fulfilment,
            // A kind of the next release.
            StockAdjustmentKind::Reconciled | StockAdjustmentKind::Unspecified => Kind::Reconciled,
        };
        Ok(Self {
            id: entry.id,
            product_id: entry.product_id,
            kind,
            delta: entry.delta,
            reason: entry.reason,
            quantity_after: entry.quantity_after,
            actor: non_empty(entry.actor),
            order_id: non_empty(entry.order_id),
            created_at: timestamp::to_rfc3339(entry.created_at)?,
        })
    }
}

/// Adjust the stock of a product
///
/// Adds units to the available ones, or removes them, and records the change in the ledger of the
/// product. With an `Idempotency-Key`, the request can be repeated for 24 hours and changes the
/// stock once. The conditions of `If-Match` and `If-None-Match` apply to the collection of
/// adjustments, which has no entity tag.
#[utoipa::path(post, path = "/products/{id}/stock-adjustments", operation_id = "adjustStock", tag = "products",
    security(("bearer" = ["products:write"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the product")),
    request_body = NewStockAdjustment,
    responses(
        (status = 201, body = StockAdjustment, description = "The stock is adjusted", headers(
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this is the stored response of an earlier request with this key"))),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "`insufficient_stock`: fewer units are available than the adjustment removes"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "`idempotency_key_reused`: the key was used with another body or product"),
    ))]
pub(crate) async fn adjust(
    State(Upstreams { mut products, cache, .. }): State<Upstreams>,
    Id(id): Id,
    IdempotencyKey(key): IdempotencyKey,
    preconditions: Preconditions,
    extract::Json(input): extract::Json<NewStockAdjustment>,
) -> Result<Response, Rejection> {
    let required = |field: &str| Violation::new(field, "required", "must be given");
    let violations: Vec<_> = input.delta.is_none().then(|| required("delta")).into_iter().collect();
    let request = AdjustStockRequest {
        product_id: id.to_string(),
        delta: input.delta.map_or(NEVER_VALID, |delta| delta.0),
        // The service also reports an empty reason as missing.
        reason: input.reason.unwrap_or_default(),
        idempotency_key: key.clone(),
        preconditions: preconditions.to_proto(),
    };
    let request = extract::retryable_with_key(request, &key);
    let write = Box::pin(async move { Ok((Changes::of_stock([id]), merge_violations(products.adjust_stock(request).await, violations)?)) });
    let result = cache.invalidate_after(vec![id], write).await;
    extract::record_key_outcome(&key, &result);
    let response = result?;
    let replay_header = replay_header(&response);
    let entry = StockAdjustment::try_from(response.into_inner())?;
    Ok((StatusCode::CREATED, replay_header, Json(entry)).into_response())
}

/// List the stock ledger of a product
///
/// Newest first, with cursor pagination. Entries past their retention (`ledger.retention_days`) are
/// replaced by one `opening` entry of their sum.
#[utoipa::path(get, path = "/products/{id}/stock-adjustments", operation_id = "listStockAdjustments", tag = "products",
    security(("bearer" = ["products:write"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the product"), LedgerPage),
    responses((status = 200, body = StockAdjustmentPage, description = "A page of the ledger")))]
pub(crate) async fn ledger(
    State(Upstreams { mut products, .. }): State<Upstreams>,
    Id(id): Id,
    Query(page): Query<LedgerPage>,
    preconditions: Preconditions,
) -> Result<Response, Rejection> {
    let request = ListStockAdjustmentsRequest {
        product_id: id.to_string(),
        limit: page.limit.map_or(0, |limit| limit.0),
        cursor: page.cursor.unwrap_or_default(),
    };
    let page = products.list_stock_adjustments(request).await.map_err(problem::from_query_status)?.into_inner();
    let items = page.items.into_iter().map(StockAdjustment::try_from).collect::<Result<_, _>>()?;
    let page = StockAdjustmentPage { items, next_cursor: non_empty(page.next_cursor) };
    // The newest entry changes with every sale that is completed.
    preconditions.unstored(page)
}

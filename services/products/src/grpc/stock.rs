//! Patches of products, stock adjustments and the ledger.

use std::time::SystemTime;

use palisade_middleware::{
    auth::{Principal, Subject},
    context,
    cursor::Cursor,
    parse,
    preconditions::Evaluation,
    rejection::{Rejection, Violation, reasons},
    trace,
};
use palisade_proto::products::v1::{
    self as proto, AdjustStockRequest, ListStockAdjustmentsRequest, ListStockAdjustmentsResponse, PatchProductRequest, StockAdjustmentKind,
};
use sha2::{Digest, Sha256};
use tonic::{Response, Status, metadata::MetadataValue};
use uuid::Uuid;

use super::{
    Products,
    convert::{self, REPLAYED},
    rejections,
};
use crate::{
    metrics,
    product::{Patch, ValidatedPatch},
    stock_ledger::{AdjustOutcome, Adjustment, Entry, Kind, LedgerPage, LedgerQuery},
    store::{IdempotencyKey, UpdateOutcome},
};

pub(super) async fn patch(products: &Products, request: PatchProductRequest) -> Result<Response<proto::Product>, Rejection> {
    let id = parse::parse_uuid(&request.id)?;
    let proto::ProductPatch { name, description, price_minor, quantity, category, is_active, removed } = request.patch.unwrap_or_default();
    let patch = Patch { name, description, price_minor, quantity, category, is_active };
    let patch = ValidatedPatch::new(patch, &removed).map_err(Rejection::invalid)?;
    let preconditions = convert::preconditions(request.preconditions, None)?;
    let actor = context::current_principal()?.subject.clone();
    let patched = products.store.patch(id, patch, preconditions, actor, products.clock.now()).await;
    updated(patched.map_err(rejections::from_store_error)?)
}

/// Returns the response to an update or a patch.
pub(super) fn updated(updated: UpdateOutcome) -> Result<Response<proto::Product>, Rejection> {
    match updated {
        UpdateOutcome::Updated(product) => Ok(Response::new(convert::product(&product))),
        UpdateOutcome::NotFound => Err(rejections::not_found()),
        UpdateOutcome::VersionMismatch => Err(rejections::version_mismatch()),
    }
}

pub(super) async fn adjust(products: &Products, request: AdjustStockRequest) -> Result<Response<proto::StockAdjustment>, Status> {
    let product_id = parse::parse_uuid(&request.product_id)?;
    let adjustment = Adjustment::new(product_id, request.delta, &request.reason).map_err(Rejection::invalid)?;
    let principal = context::current_principal()?;
    let key = idempotency_key(&principal, request.idempotency_key, &adjustment)?;
    // The collection of the adjustments exists with its product and has no version.
    let preconditions = convert::preconditions(request.preconditions, None)?;
    if preconditions.evaluate(None) != Evaluation::Passed {
        let product = products.store.find(product_id).await.map_err(rejections::from_store_error)?;
        return Err(product.map_or_else(rejections::not_found, |_| rejections::version_mismatch()).into());
    }
    let keyed = key.is_some();
    let adjusted = products.store.adjust(adjustment, key, principal.subject.clone(), products.clock.now()).await;
    let adjusted = adjusted.map_err(rejections::from_store_error)?;
    if let Some(outcome) = metrics::adjustment_key_outcome(&adjusted).filter(|_| keyed) {
        metrics::record_key_outcome(outcome);
        trace::record("app.idempotency.outcome", outcome);
    }
    let (mut response, replayed) = match adjusted {
        AdjustOutcome::Adjusted { entry, replayed } => (Ok(Response::new(stock_adjustment(&entry))), replayed),
        AdjustOutcome::InsufficientStock { replayed } => (Err(Status::from(rejections::insufficient_stock(product_id))), replayed),
        AdjustOutcome::AboveMaximum => (Err(above_maximum().into()), false),
        AdjustOutcome::NotFound => (Err(rejections::not_found().into()), false),
        AdjustOutcome::KeyReused => (Err(rejections::key_reused().into()), false),
    };
    if replayed {
        let metadata = response.as_mut().map_or_else(Status::metadata_mut, Response::metadata_mut);
        metadata.insert(REPLAYED, MetadataValue::from_static("true"));
    }
    response
}

fn above_maximum() -> Rejection {
    Rejection::invalid(vec![Violation::new("delta", "out_of_range", "the quantity must stay at or below 1000000000")])
}

/// Returns the key with the fingerprint of the request.
fn idempotency_key(principal: &Principal, key: String, adjustment: &Adjustment) -> Result<Option<IdempotencyKey>, Rejection> {
    let Some(key) = parse::idempotency_key(key)? else { return Ok(None) };
    let mut digest = Sha256::new();
    digest.update(adjustment.product_id().as_bytes());
    digest.update(adjustment.delta().to_be_bytes());
    digest.update(adjustment.reason());
    Ok(Some(IdempotencyKey { subject: principal.subject.clone(), key, fingerprint: digest.finalize().into() }))
}

pub(super) async fn list(
    products: &Products,
    request: ListStockAdjustmentsRequest,
) -> Result<Response<ListStockAdjustmentsResponse>, Rejection> {
    let product_id = parse::parse_uuid(&request.product_id)?;
    let before = position(&products.cursor, product_id, &request.cursor)?;
    let query = LedgerQuery::new(product_id, request.limit, before)
        .map_err(|violation| Rejection::new(&reasons::INVALID_PARAMETER, format!("{} {}", violation.field, violation.message)))?;
    let page = products.store.ledger(query).await.map_err(rejections::from_store_error)?;
    let LedgerPage { items, next } = page.ok_or_else(rejections::not_found)?;
    let next_cursor = next.map(|next| products.cursor.seal(&scope(product_id), &next.to_be_bytes()));
    let items = items.iter().map(stock_adjustment).collect();
    Ok(Response::new(ListStockAdjustmentsResponse { items, next_cursor: next_cursor.unwrap_or_default() }))
}

/// Opens a cursor: the sequence of the last entry of the previous page.
fn position(cursor: &Cursor, product_id: Uuid, text: &str) -> Result<Option<i64>, Rejection> {
    if text.is_empty() {
        return Ok(None);
    }
    let position = cursor.open(&scope(product_id), text).ok().and_then(|bytes| bytes.try_into().ok());
    let position = position.ok_or_else(|| Rejection::new(&reasons::INVALID_CURSOR, "the cursor belongs to another query"))?;
    Ok(Some(i64::from_be_bytes(position)))
}

/// A cursor is valid for the ledger of one product only.
fn scope(product_id: Uuid) -> Vec<u8> {
    [&b"stock-adjustments"[..], product_id.as_bytes()].concat()
}

fn stock_adjustment(entry: &Entry) -> proto::StockAdjustment {
    let kind = match entry.kind {
        Kind::Opening => StockAdjustmentKind::Opening,
        Kind::Set => StockAdjustmentKind::Set,
        Kind::Adjustment => StockAdjustmentKind::Adjustment,
        Kind::Fulfilment => StockAdjustmentKind::Fulfilment,
        Kind::Reconciled => StockAdjustmentKind::Reconciled,
    };
    proto::StockAdjustment {
        id: entry.id.to_string(),
        product_id: entry.product_id.to_string(),
        kind: kind.into(),
        delta: entry.delta,
        reason: entry.reason.clone(),
        quantity_after: entry.quantity_after,
        actor: entry.actor.as_ref().map(Subject::as_str).unwrap_or_default().to_owned(),
        order_id: entry.order_id.map(|id| id.to_string()).unwrap_or_default(),
        created_at: Some(SystemTime::from(entry.created_at).into()),
    }
}

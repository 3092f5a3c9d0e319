//! Patches, stock adjustments and the history of the in-memory products service.

use palisade_middleware::{
    preconditions::Evaluation,
    rejection::{Rejection, Violation, reasons},
};
use palisade_proto::{
    products::v1::{self as products, StockAdjustment, StockAdjustmentKind},
    reasons::INSUFFICIENT_STOCK,
};
use tonic::{Response, Status};

use crate::fake_services::{ID, check_exists, respond, timestamp, version_preconditions};

/// Units of the product.
const QUANTITY: i64 = 7;

/// Returns the fields of the product after a patch.
pub(crate) fn patched(patch: products::ProductPatch) -> Result<products::ProductInput, Status> {
    let removed = patch.removed.iter().map(|field| Violation::new(field, "required", "must not be null"));
    let violations: Vec<_> = removed.collect();
    if !violations.is_empty() {
        return Err(Rejection::invalid(violations).into());
    }
    Ok(products::ProductInput {
        name: patch.name.unwrap_or_else(|| "Kettle".to_owned()),
        price_minor: patch.price_minor.unwrap_or(2490),
        quantity: patch.quantity.unwrap_or(QUANTITY),
        ..Default::default()
    })
}

pub(crate) fn adjust(request: products::AdjustStockRequest) -> Result<Response<StockAdjustment>, Status> {
    if request.delta == 0 || request.reason.is_empty() {
        let delta = (request.delta == 0).then(|| Violation::new("delta", "out_of_range", "must not be 0"));
        let reason = request.reason.is_empty().then(|| Violation::new("reason", "required", "must not be empty"));
        return Err(Rejection::invalid(delta.into_iter().chain(reason).collect()).into());
    }
    check_exists(&request.product_id)?;
    // The collection has no version.
    if version_preconditions(request.preconditions).evaluate(None) != Evaluation::Passed {
        return Err(Rejection::new(&reasons::VERSION_MISMATCH, "no version").into());
    }
    if request.delta < -QUANTITY {
        return Err(Rejection::new(&INSUFFICIENT_STOCK, "fewer units are available").with_metadata("productId", ID.to_owned()).into());
    }
    Ok(respond(adjustment(request.delta, &request.reason), &request.idempotency_key))
}

pub(crate) fn list(request: &products::ListStockAdjustmentsRequest) -> Result<Response<products::ListStockAdjustmentsResponse>, Status> {
    check_exists(&request.product_id)?;
    if request.cursor == "forged" {
        return Err(Rejection::new(&reasons::INVALID_CURSOR, "the cursor belongs to another query").into());
    }
    let kind = StockAdjustmentKind::Fulfilment.into();
    let fulfilment = StockAdjustment { kind, actor: String::new(), order_id: ID.to_owned(), ..adjustment(-2, "") };
    let items = vec![fulfilment, adjustment(-3, "damaged")];
    Ok(Response::new(products::ListStockAdjustmentsResponse { items, next_cursor: "more".to_owned() }))
}

/// Returns the last change, by an earlier release, a change by alice, and her creation.
pub(crate) fn history(request: &products::FindHistoryRequest) -> Result<Response<products::FindHistoryResponse>, Status> {
    check_exists(&request.id)?;
    let text = |from: Option<&str>, to: &str| Some(products::TextEdit { from: from.map(str::to_owned), to: to.to_owned() });
    let price = |from_minor, to_minor| Some(products::PriceEdit { from_minor, to_minor });
    let by =
        |version, actor: &str| products::ProductChange { version, actor: actor.to_owned(), at: Some(timestamp()), ..Default::default() };
    let items = vec![
        products::ProductChange { is_active: Some(products::FlagEdit { from: Some(true), to: false }), ..by(5, "") },
        products::ProductChange { description_changed: true, price: price(Some(2490), 0), ..by(3, "alice") },
        products::ProductChange {
            name: text(None, "Kettle"),
            price: price(None, 2490),
            category: text(None, "kitchen"),
            is_active: Some(products::FlagEdit { from: None, to: true }),
            ..by(1, "alice")
        },
    ];
    Ok(Response::new(products::FindHistoryResponse { items }))
}

fn adjustment(delta: i64, reason: &str) -> StockAdjustment {
    StockAdjustment {
        id: ID.to_owned(),
        product_id: ID.to_owned(),
        kind: StockAdjustmentKind::Adjustment.into(),
        delta,
        reason: reason.to_owned(),
        quantity_after: QUANTITY + delta,
        actor: "alice".to_owned(),
        order_id: String::new(),
        created_at: Some(timestamp()),
    }
}

//! Rejection reasons of the orders service.

use std::time::Duration;

use http::StatusCode;
use palisade_middleware::rejection::{Reason, Rejection, reasons};
use tonic::Code;

use crate::{
    order::{FailureReason, Order, Status},
    store,
};

/// Illegal status transition. The metadata `allowed` lists the legal ones.
pub static ILLEGAL_TRANSITION: Reason =
    Reason::new("illegal_transition", StatusCode::CONFLICT, Code::FailedPrecondition, "The order cannot change to this status");
/// Only an order in a terminal state can be removed.
pub static ORDER_IN_PROGRESS: Reason =
    Reason::new("order_in_progress", StatusCode::CONFLICT, Code::FailedPrecondition, "The order is not in a terminal state");
static INSUFFICIENT_STOCK: Reason = Reason::new("insufficient_stock", StatusCode::CONFLICT, Code::FailedPrecondition, "Insufficient stock");
static UNKNOWN_PRODUCT: Reason =
    Reason::new("unknown_product", StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition, "A product does not exist");
static PRODUCT_INACTIVE: Reason =
    Reason::new("product_inactive", StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition, "A product is inactive");
static RESERVATION_EXPIRED: Reason =
    Reason::new("reservation_expired", StatusCode::CONFLICT, Code::FailedPrecondition, "The reservation expired before it was confirmed");
static PRODUCTS_UNAVAILABLE: Reason =
    Reason::new("products_unavailable", StatusCode::CONFLICT, Code::FailedPrecondition, "The products service did not answer in time");

/// `Retry-After` while the order store is unavailable.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// The order does not exist, or the caller may not see it.
pub fn not_found() -> Rejection {
    Rejection::new(&reasons::NOT_FOUND, "order not found")
}

/// Converts a store error. An unavailable store is a 503, whatever the cause.
pub fn from_store_error(error: store::Error) -> Rejection {
    match error {
        store::Error::Corrupt(_) => Rejection::internal(error),
        store::Error::Unavailable(_) | store::Error::Timeout => {
            Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the order store is unavailable")
                .with_retry_after(STORE_RETRY)
                .with_source(error)
        }
    }
}

/// Rejects the transition from `from` to `to`.
pub fn illegal_transition(from: Status, to: Status, allowed: &[Status]) -> Rejection {
    let allowed: Vec<String> = allowed.iter().map(|status| status.as_str().to_owned()).collect();
    let detail = format!("an order with status {} cannot become {}", from.as_str(), to.as_str());
    Rejection::new(&ILLEGAL_TRANSITION, detail).with_metadata("allowed", allowed)
}

/// Rejects the removal of an order with this status.
pub fn order_in_progress(status: Status) -> Rejection {
    Rejection::new(&ORDER_IN_PROGRESS, format!("an order with status {} cannot be removed", status.as_str()))
}

/// Rejection for an order that was accepted and then failed.
pub fn order_failed(order: &Order) -> Rejection {
    let reason = match order.failure_reason {
        Some(FailureReason::InsufficientStock) => &INSUFFICIENT_STOCK,
        Some(FailureReason::UnknownProduct) => &UNKNOWN_PRODUCT,
        Some(FailureReason::ProductInactive) => &PRODUCT_INACTIVE,
        Some(FailureReason::ReservationExpired) => &RESERVATION_EXPIRED,
        Some(FailureReason::ProductsUnavailable) => &PRODUCTS_UNAVAILABLE,
        None => return Rejection::internal("the order has status FAILED but no failure reason"),
    };
    Rejection::new(reason, "the order was accepted but failed").with_metadata("orderId", order.id.to_string())
}

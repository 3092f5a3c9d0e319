//! The reasons that orders has for a "no".

use std::time::Duration;

use http::StatusCode;
use palisade_middleware::rejection::{Reason, Rejection, reasons};
use tonic::Code;

use crate::{
    order::{FailureReason, Order, Status},
    store,
};

/// The order may not become that; `allowed` says what it may.
pub static ILLEGAL_TRANSITION: Reason =
    Reason::new("illegal_transition", StatusCode::CONFLICT, Code::FailedPrecondition, "The order may not become that");
/// Only an order at its end can be removed.
pub static ORDER_IN_PROGRESS: Reason =
    Reason::new("order_in_progress", StatusCode::CONFLICT, Code::FailedPrecondition, "The order is not at its end");
static INSUFFICIENT_STOCK: Reason =
    Reason::new("insufficient_stock", StatusCode::CONFLICT, Code::FailedPrecondition, "There is not enough stock");
static UNKNOWN_PRODUCT: Reason =
    Reason::new("unknown_product", StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition, "A product does not exist");
static PRODUCT_INACTIVE: Reason =
    Reason::new("product_inactive", StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition, "A product is not for sale");
static RESERVATION_EXPIRED: Reason =
    Reason::new("reservation_expired", StatusCode::CONFLICT, Code::FailedPrecondition, "The stock was not held long enough");
static PRODUCTS_UNAVAILABLE: Reason =
    Reason::new("products_unavailable", StatusCode::CONFLICT, Code::FailedPrecondition, "The products service did not answer in time");

/// A dependency that is down is a 503, whatever the driver called it.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// There is no such order, or none that the caller may know of.
pub fn not_found() -> Rejection {
    Rejection::new(&reasons::NOT_FOUND, "there is no such order")
}

/// The store gave no answer.
pub fn from_store_error(error: store::Error) -> Rejection {
    match error {
        store::Error::Corrupt(_) => Rejection::internal(error),
        store::Error::Unavailable(_) | store::Error::Timeout => {
            Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the order store does not answer")
                .with_retry_after(STORE_RETRY)
                .with_source(error)
        }
    }
}

/// `from` may not become `to`.
pub fn illegal_transition(from: Status, to: Status, allowed: &[Status]) -> Rejection {
    let allowed: Vec<String> = allowed.iter().map(|status| status.as_str().to_owned()).collect();
    let detail = format!("an order that is {} cannot become {}", from.as_str(), to.as_str());
    Rejection::new(&ILLEGAL_TRANSITION, detail).with_metadata("allowed", allowed)
}

/// An order with this status cannot be removed.
pub fn order_in_progress(status: Status) -> Rejection {
    Rejection::new(&ORDER_IN_PROGRESS, format!("an order that is {} cannot be removed", status.as_str()))
}

/// The order was accepted and failed.
pub fn order_failed(order: &Order) -> Rejection {
    let reason = match order.failure_reason {
        Some(FailureReason::InsufficientStock) => &INSUFFICIENT_STOCK,
        Some(FailureReason::UnknownProduct) => &UNKNOWN_PRODUCT,
        Some(FailureReason::ProductInactive) => &PRODUCT_INACTIVE,
        Some(FailureReason::ReservationExpired) => &RESERVATION_EXPIRED,
        Some(FailureReason::ProductsUnavailable) => &PRODUCTS_UNAVAILABLE,
        None => return Rejection::internal("an order failed without a reason"),
    };
    Rejection::new(reason, "the order was accepted and has failed").with_metadata("orderId", order.id.to_string())
}

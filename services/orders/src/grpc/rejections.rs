//! Rejections of the orders service.

use std::time::Duration;

use http::StatusCode;
use palisade_middleware::rejection::{Reason, Rejection, reasons};
use tonic::Code;

use crate::{
    order::{FailureReason, Order, Status},
    store,
};

/// `Retry-After` while the order store is unavailable.
const STORE_RETRY: Duration = Duration::from_secs(1);

macro_rules! own_reasons {
    ($($name:ident = $slug:literal, $http:ident, $grpc:ident, $title:literal;)*) => {
        $(static $name: Reason = Reason::new($slug, StatusCode::$http, Code::$grpc, $title);)*
    };
}

// Reasons beyond the common ones. The gateway has the same table for its problems.
own_reasons! {
    ILLEGAL_TRANSITION = "illegal_transition", CONFLICT, FailedPrecondition, "The order cannot change to this status";
    ORDER_IN_PROGRESS = "order_in_progress", CONFLICT, FailedPrecondition, "The order is not in a terminal state";
    INSUFFICIENT_STOCK = "insufficient_stock", CONFLICT, FailedPrecondition, "Insufficient stock";
    UNKNOWN_PRODUCT = "unknown_product", UNPROCESSABLE_ENTITY, FailedPrecondition, "A product does not exist";
    PRODUCT_INACTIVE = "product_inactive", UNPROCESSABLE_ENTITY, FailedPrecondition, "A product is inactive";
    RESERVATION_EXPIRED = "reservation_expired", CONFLICT, FailedPrecondition, "The reservation expired before it was confirmed";
    PRODUCTS_UNAVAILABLE = "products_unavailable", CONFLICT, FailedPrecondition, "The products service did not answer in time";
}

/// The order does not exist, or the caller may not see it.
pub(super) fn not_found() -> Rejection {
    Rejection::new(&reasons::NOT_FOUND, "order not found")
}

/// The version of the order does not satisfy the preconditions of the request.
pub(super) fn version_mismatch() -> Rejection {
    Rejection::new(&reasons::VERSION_MISMATCH, "a condition on the version of the order is false")
}

/// The saga worker does not run, so that an accepted order would make no progress.
pub(super) fn no_worker(reason: &str) -> Rejection {
    tracing::warn!(reason, "order rejected, the saga worker does not run");
    Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "orders cannot be processed at the moment").with_retry_after(STORE_RETRY)
}

/// Converts a store error. An unavailable store is a 503, whatever the cause.
pub(super) fn from_store_error(error: store::Error) -> Rejection {
    match error {
        store::Error::Corrupt(_) => Rejection::internal(error),
        store::Error::Overloaded => {
            Rejection::new(&reasons::OVERLOADED, "the order store is overloaded").with_retry_after(STORE_RETRY).with_source(error)
        }
        store::Error::Unavailable(_) | store::Error::Timeout => {
            Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the order store is unavailable")
                .with_retry_after(STORE_RETRY)
                .with_source(error)
        }
    }
}

/// Rejects the transition from `from` to `to`. The metadata `allowed` lists the legal ones.
pub(super) fn illegal_transition(from: Status, to: Status, allowed: &[Status]) -> Rejection {
    let allowed: Vec<String> = allowed.iter().map(|status| status.as_str().to_owned()).collect();
    let detail = format!("an order with status {} cannot become {}", from.as_str(), to.as_str());
    Rejection::new(&ILLEGAL_TRANSITION, detail).with_metadata("allowed", allowed)
}

/// Rejects the removal of an order with this status, which is not terminal.
pub(super) fn order_in_progress(status: Status) -> Rejection {
    Rejection::new(&ORDER_IN_PROGRESS, format!("an order with status {} cannot be removed", status.as_str()))
}

/// Rejection for an order that was accepted and then failed.
pub(super) fn order_failed(order: &Order) -> Rejection {
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

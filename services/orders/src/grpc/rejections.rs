//! Rejections of the orders service.

use std::time::Duration;

use palisade_middleware::rejection::{Reason, Rejection, reasons};
use palisade_proto::reasons as shop_reasons;

use crate::{
    order::{FailureReason, Order, Status},
    store,
};

/// `Retry-After` while the order store is unavailable.
const STORE_RETRY: Duration = Duration::from_secs(1);

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
    Rejection::new(&shop_reasons::ILLEGAL_TRANSITION, detail).with_metadata("allowed", allowed)
}

/// Rejects a revision of an order with this status. The metadata `allowed` lists the statuses that
/// it can become.
pub(super) fn not_revisable(status: Status, allowed: &[Status]) -> Rejection {
    let allowed: Vec<String> = allowed.iter().map(|status| status.as_str().to_owned()).collect();
    let detail = format!("an order with status {} cannot be revised", status.as_str());
    Rejection::new(&shop_reasons::ILLEGAL_TRANSITION, detail).with_metadata("allowed", allowed)
}

/// Rejection of a revision that products refused: the order has its old lines.
pub(super) fn revision_refused(reason: FailureReason) -> Rejection {
    Rejection::new(shop_reason(reason), "the revision was refused, the order is unchanged")
}

/// Rejects the removal of an order with this status, which is not terminal.
pub(super) fn order_in_progress(status: Status) -> Rejection {
    Rejection::new(&shop_reasons::ORDER_IN_PROGRESS, format!("an order with status {} cannot be removed", status.as_str()))
}

/// Rejection for an order that was accepted and then failed.
pub(super) fn order_failed(order: &Order) -> Rejection {
    let Some(reason) = order.failure_reason else {
        return Rejection::internal("the order has status FAILED but no failure reason");
    };
    Rejection::new(shop_reason(reason), "the order was accepted but failed").with_metadata("orderId", order.id.to_string())
}

fn shop_reason(reason: FailureReason) -> &'static Reason {
    match reason {
        FailureReason::InsufficientStock => &shop_reasons::INSUFFICIENT_STOCK,
        FailureReason::UnknownProduct => &shop_reasons::UNKNOWN_PRODUCT,
        FailureReason::ProductInactive => &shop_reasons::PRODUCT_INACTIVE,
        FailureReason::ReservationExpired => &shop_reasons::RESERVATION_EXPIRED,
        FailureReason::ProductsUnavailable => &shop_reasons::PRODUCTS_UNAVAILABLE,
        FailureReason::PriceChanged => &shop_reasons::PRICE_CHANGED,
    }
}

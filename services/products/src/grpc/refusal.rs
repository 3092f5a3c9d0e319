//! Rejection reasons of the products service.

use std::time::Duration;

use http::StatusCode;
use palisade_middleware::rejection::{Reason, Rejection, Violation, reasons};
use tonic::Code;
use uuid::Uuid;

use crate::{reservation::Refusal, store};

/// Open reservations hold units of the product.
pub static PRODUCT_IN_USE: Reason =
    Reason::new("product_in_use", StatusCode::CONFLICT, Code::FailedPrecondition, "Open reservations hold units of the product");
static INSUFFICIENT_STOCK: Reason = Reason::new("insufficient_stock", StatusCode::CONFLICT, Code::FailedPrecondition, "Insufficient stock");
static UNKNOWN_PRODUCT: Reason =
    Reason::new("unknown_product", StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition, "A product does not exist");
static PRODUCT_INACTIVE: Reason =
    Reason::new("product_inactive", StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition, "A product is inactive");
static RESERVATION_RELEASED: Reason =
    Reason::new("reservation_released", StatusCode::CONFLICT, Code::FailedPrecondition, "The reservation was released");
static RELEASED_BEFORE_RESERVE: Reason =
    Reason::new("reservation_released", StatusCode::CONFLICT, Code::Aborted, "The reservation was released before it was made");
static RESERVATION_EXPIRED: Reason = Reason::new("reservation_expired", StatusCode::CONFLICT, Code::FailedPrecondition, "The hold expired");
static RESERVATION_REFUSED: Reason =
    Reason::new("reservation_refused", StatusCode::CONFLICT, Code::FailedPrecondition, "The reservation was rejected");
static RESERVATION_UNKNOWN: Reason =
    Reason::new("reservation_unknown", StatusCode::NOT_FOUND, Code::NotFound, "The reservation does not exist");

const STORE_RETRY: Duration = Duration::from_secs(1);

/// The product does not exist.
pub fn not_found() -> Rejection {
    Rejection::new(&reasons::NOT_FOUND, "the product does not exist")
}

/// The product has changed since the client read it.
pub fn version_mismatch() -> Rejection {
    Rejection::new(&reasons::VERSION_MISMATCH, "the product has a different version")
}

/// The product cannot be removed: open reservations hold units of it.
pub fn in_use() -> Rejection {
    Rejection::new(&PRODUCT_IN_USE, "open reservations hold units of the product")
}

/// Converts a store error: unavailable with a retry delay, or internal for a corrupt record.
pub fn of_store(error: store::Error) -> Rejection {
    match error {
        store::Error::Corrupt(_) => Rejection::internal(error),
        store::Error::Unavailable(_) | store::Error::Timeout => {
            Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the product store is unavailable")
                .with_retry_after(STORE_RETRY)
                .with_source(error)
        }
    }
}

/// No line of the reservation was taken.
pub fn refused(refusal: Refusal, product_id: Uuid) -> Rejection {
    let reason = match refusal {
        Refusal::InsufficientStock => &INSUFFICIENT_STOCK,
        Refusal::UnknownProduct => &UNKNOWN_PRODUCT,
        Refusal::ProductInactive => &PRODUCT_INACTIVE,
    };
    Rejection::new(reason, "no line was reserved").with_metadata("productId", product_id.to_string())
}

/// The id belongs to a reservation with other lines.
pub fn different_lines() -> Rejection {
    Rejection::invalid(vec![Violation::new("lines", "different_lines", "the reservation was made with other lines")])
}

/// The release arrived first: its tombstone rejects the late reserve.
pub fn released_before_reserve() -> Rejection {
    Rejection::new(&RELEASED_BEFORE_RESERVE, "the reservation was released before it was made")
}

/// The reservation was released.
pub fn released() -> Rejection {
    Rejection::new(&RESERVATION_RELEASED, "the reservation was released")
}

/// The hold expired before it was confirmed.
pub fn expired() -> Rejection {
    Rejection::new(&RESERVATION_EXPIRED, "the reservation was not confirmed in time")
}

/// The reservation was rejected, so it cannot be confirmed.
pub fn was_refused() -> Rejection {
    Rejection::new(&RESERVATION_REFUSED, "the reservation was rejected")
}

/// No reservation has this id.
pub fn unknown_reservation() -> Rejection {
    Rejection::new(&RESERVATION_UNKNOWN, "the reservation does not exist")
}

//! The reasons that products has for a "no".

use std::time::Duration;

use http::StatusCode;
use palisade_middleware::rejection::{Reason, Rejection, Violation, reasons};
use tonic::Code;
use uuid::Uuid;

use crate::{reservation::Refusal, store};

/// Open reservations hold units of the product.
pub static PRODUCT_IN_USE: Reason =
    Reason::new("product_in_use", StatusCode::CONFLICT, Code::FailedPrecondition, "Open reservations hold units of the product");
static INSUFFICIENT_STOCK: Reason =
    Reason::new("insufficient_stock", StatusCode::CONFLICT, Code::FailedPrecondition, "There is not enough stock");
static UNKNOWN_PRODUCT: Reason =
    Reason::new("unknown_product", StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition, "A product does not exist");
static PRODUCT_INACTIVE: Reason =
    Reason::new("product_inactive", StatusCode::UNPROCESSABLE_ENTITY, Code::FailedPrecondition, "A product is not for sale");
static RESERVATION_RELEASED: Reason =
    Reason::new("reservation_released", StatusCode::CONFLICT, Code::FailedPrecondition, "The reservation was given back");
static RELEASED_BEFORE_RESERVE: Reason =
    Reason::new("reservation_released", StatusCode::CONFLICT, Code::Aborted, "The reservation was released before it was made");
static RESERVATION_EXPIRED: Reason = Reason::new("reservation_expired", StatusCode::CONFLICT, Code::FailedPrecondition, "The hold ran out");
static RESERVATION_REFUSED: Reason =
    Reason::new("reservation_refused", StatusCode::CONFLICT, Code::FailedPrecondition, "The reservation was refused");
static RESERVATION_UNKNOWN: Reason =
    Reason::new("reservation_unknown", StatusCode::NOT_FOUND, Code::NotFound, "There is no such reservation");

const STORE_RETRY: Duration = Duration::from_secs(1);

/// There is no such product.
pub fn not_found() -> Rejection {
    Rejection::new(&reasons::NOT_FOUND, "there is no such product")
}

/// The product has moved on since the caller read it.
pub fn version_mismatch() -> Rejection {
    Rejection::new(&reasons::VERSION_MISMATCH, "the product has another version by now")
}

/// The product cannot be removed.
pub fn in_use() -> Rejection {
    Rejection::new(&PRODUCT_IN_USE, "units of the product are in open reservations")
}

/// The store gave no answer.
pub fn of_store(error: store::Error) -> Rejection {
    match error {
        store::Error::Corrupt(_) => Rejection::internal(error),
        store::Error::Unavailable(_) | store::Error::Timeout => {
            Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the product store does not answer")
                .with_retry_after(STORE_RETRY)
                .with_source(error)
        }
    }
}

/// Not one line was taken.
pub fn refused(refusal: Refusal, product_id: Uuid) -> Rejection {
    let reason = match refusal {
        Refusal::InsufficientStock => &INSUFFICIENT_STOCK,
        Refusal::UnknownProduct => &UNKNOWN_PRODUCT,
        Refusal::ProductInactive => &PRODUCT_INACTIVE,
    };
    Rejection::new(reason, "not one line was reserved").with_metadata("productId", product_id.to_string())
}

/// The id belongs to a reservation of other lines.
pub fn different_lines() -> Rejection {
    Rejection::invalid(vec![Violation::new("lines", "different_lines", "the reservation was made with other lines")])
}

/// A tombstone refuses a late reserve.
pub fn released_before_reserve() -> Rejection {
    Rejection::new(&RELEASED_BEFORE_RESERVE, "the reservation was released, it cannot be made any more")
}

/// It was given back.
pub fn released() -> Rejection {
    Rejection::new(&RESERVATION_RELEASED, "the reservation was given back")
}

/// It was not confirmed in time.
pub fn expired() -> Rejection {
    Rejection::new(&RESERVATION_EXPIRED, "the reservation was not confirmed in time")
}

/// There is nothing to confirm.
pub fn was_refused() -> Rejection {
    Rejection::new(&RESERVATION_REFUSED, "the reservation was refused")
}

/// Nobody ever reserved under this id.
pub fn unknown_reservation() -> Rejection {
    Rejection::new(&RESERVATION_UNKNOWN, "there is no such reservation")
}

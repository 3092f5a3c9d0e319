//! Rejections of the products service.

use std::time::Duration;

use palisade_middleware::rejection::{Reason, Rejection, Violation, reasons};
use palisade_proto::reasons::{self as shop_reasons, reservation};
use tonic::Code;
use uuid::Uuid;

use crate::{reservation::Refusal, store};

/// `Retry-After` while the product store is unavailable.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Like [`reservation::RELEASED`], but the contract gives a late reserve a code of its own.
static RESERVE_AFTER_RELEASE: Reason = Reason { grpc: Code::Aborted, ..reservation::RELEASED };

/// The product does not exist.
pub(super) fn not_found() -> Rejection {
    Rejection::new(&reasons::NOT_FOUND, "the product does not exist")
}

/// The product has changed since the client read it.
pub(super) fn version_mismatch() -> Rejection {
    Rejection::new(&reasons::VERSION_MISMATCH, "the product has a different version")
}

/// The product cannot be removed: open reservations hold units of it.
pub(super) fn product_in_use() -> Rejection {
    Rejection::new(&shop_reasons::PRODUCT_IN_USE, "open reservations hold units of the product")
}

/// Converts a store error: unavailable with a retry delay, or internal for a corrupt record.
pub(super) fn from_store_error(error: store::Error) -> Rejection {
    match error {
        store::Error::Corrupt(_) => Rejection::internal(error),
        store::Error::Overloaded => {
            Rejection::new(&reasons::OVERLOADED, "the product store is overloaded").with_retry_after(STORE_RETRY).with_source(error)
        }
        store::Error::Unavailable(_) | store::Error::Timeout => {
            Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the product store is unavailable")
                .with_retry_after(STORE_RETRY)
                .with_source(error)
        }
    }
}

/// No line of the reservation was taken. Only the total has no product to name.
pub(super) fn refused(refusal: Refusal, product_id: Uuid) -> Rejection {
    let reason = match refusal {
        Refusal::InsufficientStock => &shop_reasons::INSUFFICIENT_STOCK,
        Refusal::UnknownProduct => &shop_reasons::UNKNOWN_PRODUCT,
        Refusal::ProductInactive => &shop_reasons::PRODUCT_INACTIVE,
        Refusal::PriceChanged => return Rejection::new(&shop_reasons::PRICE_CHANGED, "the total exceeds its limit"),
    };
    Rejection::new(reason, "no line was reserved").with_metadata("productId", product_id.to_string())
}

/// Fewer units are available than an adjustment removes.
pub(super) fn insufficient_stock(product_id: Uuid) -> Rejection {
    Rejection::new(&shop_reasons::INSUFFICIENT_STOCK, "fewer units are available than the adjustment removes")
        .with_metadata("productId", product_id.to_string())
}

/// The idempotency key belongs to another request.
pub(super) fn key_reused() -> Rejection {
    Rejection::new(&reasons::IDEMPOTENCY_KEY_REUSED, "the idempotency key was used with another body")
}

/// The id belongs to a reservation with other lines.
pub(super) fn different_lines() -> Rejection {
    Rejection::invalid(vec![Violation::new("lines", "different_lines", "the reservation was made with other lines")])
}

/// The release arrived first: its tombstone rejects the late reserve.
pub(super) fn reserve_after_release() -> Rejection {
    Rejection::new(&RESERVE_AFTER_RELEASE, "the reservation was released before it was made")
}

/// The reservation was released.
pub(super) fn released() -> Rejection {
    Rejection::new(&reservation::RELEASED, "the reservation was released")
}

/// The hold expired before it was confirmed.
pub(super) fn expired() -> Rejection {
    Rejection::new(&shop_reasons::RESERVATION_EXPIRED, "the reservation was not confirmed in time")
}

/// The reservation was rejected, so it cannot be confirmed.
pub(super) fn confirm_of_refused() -> Rejection {
    Rejection::new(&reservation::REFUSED, "the reservation was rejected")
}

/// A later revision of the reservation was made, or one with this number and other lines: the
/// caller was restored from a backup.
pub(super) fn superseded() -> Rejection {
    Rejection::new(&reservation::REVISED, "a later revision of the reservation was made, or this one with other lines")
}

/// The reservation cannot be revised or fulfilled: it owns no confirmed units.
pub(super) fn not_confirmed() -> Rejection {
    Rejection::new(&reservation::NOT_CONFIRMED, "the reservation is not confirmed")
}

/// No reservation has this id.
pub(super) fn unknown_reservation() -> Rejection {
    Rejection::new(&reservation::UNKNOWN, "the reservation does not exist")
}

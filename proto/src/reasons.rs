//! Rejection reasons of the shop, beyond those that are common to all APIs
//! ([`palisade_resilience::rejection::reasons`]). A service answers with them, and its caller
//! recognizes them by their slug.

palisade_resilience::reasons! {
    PRODUCT_IN_USE = "product_in_use", CONFLICT, FailedPrecondition, "Open reservations hold units of the product";
    INSUFFICIENT_STOCK = "insufficient_stock", CONFLICT, FailedPrecondition, "Insufficient stock";
    UNKNOWN_PRODUCT = "unknown_product", UNPROCESSABLE_ENTITY, FailedPrecondition, "A product does not exist";
    PRODUCT_INACTIVE = "product_inactive", UNPROCESSABLE_ENTITY, FailedPrecondition, "A product is inactive";
    PRICE_CHANGED = "price_changed", CONFLICT, FailedPrecondition, "The total exceeds the limit of the request";
    ILLEGAL_TRANSITION = "illegal_transition", CONFLICT, FailedPrecondition, "The order cannot change to this status";
    REVISION_IN_PROGRESS = "revision_in_progress", CONFLICT, Aborted, "Another revision of the order is pending";
    TOO_MANY_REVISIONS = "too_many_revisions", CONFLICT, FailedPrecondition, "The order was revised too often";
    ORDER_IN_PROGRESS = "order_in_progress", CONFLICT, FailedPrecondition, "The order is not in a terminal state";
    RESERVATION_EXPIRED = "reservation_expired", CONFLICT, FailedPrecondition, "The reservation expired before it was confirmed";
    // Not a 503: this order has failed permanently, and repeating the request returns the same
    // error.
    PRODUCTS_UNAVAILABLE = "products_unavailable", CONFLICT, FailedPrecondition, "The products service did not answer in time";
    CONFLICT = "conflict", CONFLICT, Aborted, "The request conflicts with the current state";
}

/// Reasons that only the orders service receives, from its calls about reservations.
pub mod reservation {
    palisade_resilience::reasons! {
        RELEASED = "reservation_released", CONFLICT, FailedPrecondition, "The reservation was released";
        REFUSED = "reservation_refused", CONFLICT, FailedPrecondition, "The reservation was rejected";
        NOT_CONFIRMED = "reservation_not_confirmed", CONFLICT, FailedPrecondition, "The reservation is not confirmed";
        REVISED = "reservation_revised", CONFLICT, FailedPrecondition, "The reservation has a later revision";
        UNKNOWN = "reservation_unknown", NOT_FOUND, NotFound, "The reservation does not exist";
    }
}

//! Error mapping: the only place where gRPC statuses of the services become HTTP problems.

use http::{HeaderName, HeaderValue, StatusCode};
use palisade_middleware::rejection::{DOMAIN, MetadataValue, Reason, Rejection, Violation, reasons};
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Metadata of the services and header of the gateway: replayed response of an earlier request with
/// the same idempotency key.
const REPLAYED: &str = "idempotency-replayed";

macro_rules! reasons {
    ($($name:ident = $slug:literal, $http:ident, $grpc:ident, $title:literal;)*) => {
        $(static $name: Reason = Reason::new($slug, StatusCode::$http, Code::$grpc, $title);)*

        /// Reasons of products and orders beyond [`palisade_middleware::rejection::reasons`].
        static OWN: &[&Reason] = &[$(&$name),*];
    };
}

reasons! {
    PRODUCT_IN_USE = "product_in_use", CONFLICT, FailedPrecondition, "Open reservations hold units of the product";
    INSUFFICIENT_STOCK = "insufficient_stock", CONFLICT, FailedPrecondition, "Insufficient stock";
    UNKNOWN_PRODUCT = "unknown_product", UNPROCESSABLE_ENTITY, FailedPrecondition, "A product does not exist";
    PRODUCT_INACTIVE = "product_inactive", UNPROCESSABLE_ENTITY, FailedPrecondition, "A product is inactive";
    ILLEGAL_TRANSITION = "illegal_transition", CONFLICT, FailedPrecondition, "The order cannot change to this status";
    ORDER_IN_PROGRESS = "order_in_progress", CONFLICT, FailedPrecondition, "The order is not in a terminal state";
    RESERVATION_EXPIRED = "reservation_expired", CONFLICT, FailedPrecondition, "The reservation expired before it was confirmed";
    // Not a 503: this order has failed permanently, and repeating the request returns the same
    // error.
    PRODUCTS_UNAVAILABLE = "products_unavailable", CONFLICT, FailedPrecondition, "The products service did not answer in time";
    CONFLICT = "conflict", CONFLICT, Aborted, "The request conflicts with the current state";
}

/// Error metadata that is passed to clients. Other keys are internal.
const METADATA_KEYS: [&str; 3] = ["orderId", "productId", "status"];

/// Like [`METADATA_KEYS`], with a list as value.
const LIST_METADATA_KEYS: [&str; 1] = ["allowed"];

/// Converts an error of a service. Its message is passed to the client only with an `ErrorInfo` of
/// our domain; the full status is logged.
pub(crate) fn rejection(status: Status) -> Rejection {
    let details = status.get_error_details();
    let reason = details.error_info().filter(|info| info.domain == DOMAIN).and_then(|info| known_reason(&info.reason));
    let mut rejection = match reason {
        Some(reason) if reason.is_internal_fault() => Rejection::new(&reasons::INTERNAL, "an unexpected error"),
        Some(reason) => with_details(Rejection::new(reason, status.message().to_owned()), &details),
        None => from_bare_code(status.code()),
    };
    if let Some(wait) = details.retry_info().and_then(|info| info.retry_delay) {
        rejection = rejection.with_retry_after(wait);
    }
    if status.metadata().contains_key(REPLAYED) {
        let (name, value) = replayed();
        rejection = rejection.with_header(name, value);
    }
    rejection.with_source(status)
}

/// Like [`rejection`], for a query validated by the service: violations become an invalid
/// parameter.
pub(crate) fn from_query_status(status: Status) -> Rejection {
    let rejection = rejection(status);
    if *rejection.reason() != reasons::VALIDATION_FAILED {
        return rejection;
    }
    let broken: Vec<_> = rejection.violations().iter().map(|broken| format!("{} {}", broken.field, broken.message)).collect();
    Rejection::new(&reasons::INVALID_PARAMETER, broken.join("; "))
}

/// Merges the violations found by the gateway with those of the service, so the client receives all
/// of them at once.
///
/// A body with violations is still sent, with values that the service rejects, because the service
/// owns the other rules.
pub(crate) fn merge_violations<T>(answer: Result<Response<T>, Status>, mut violations: Vec<Violation>) -> Result<Response<T>, Rejection> {
    let rejection = match answer {
        Ok(_) if !violations.is_empty() => return Err(Rejection::internal("a service accepted an invalid body")),
        Ok(answer) => return Ok(answer),
        Err(status) => rejection(status),
    };
    if violations.is_empty() || *rejection.reason() != reasons::VALIDATION_FAILED {
        return Err(rejection);
    }
    let upstream = rejection.violations().iter().filter(|theirs| violations.iter().all(|own| own.field != theirs.field));
    let upstream: Vec<_> = upstream.cloned().collect();
    violations.extend(upstream);
    Err(Rejection::invalid(violations))
}

/// Returns the replay header if this is the stored response of an earlier request.
pub(crate) fn is_replayed<T>(answer: &Response<T>) -> Option<[(HeaderName, HeaderValue); 1]> {
    answer.metadata().contains_key(REPLAYED).then(replayed).map(|header| [header])
}

/// Whether this error is the stored response of an earlier request.
pub(crate) fn is_replay(refusal: &Rejection) -> bool {
    refusal.headers().iter().any(|(name, _)| name == REPLAYED)
}

fn replayed() -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(REPLAYED), HeaderValue::from_static("true"))
}

fn known_reason(reason: &str) -> Option<&'static Reason> {
    let slug = reason.to_ascii_lowercase();
    reasons::ALL.iter().chain(OWN).copied().find(|reason| reason.slug == slug)
}

fn with_details(rejection: Rejection, details: &ErrorDetails) -> Rejection {
    let mut rejection = rejection.with_violations(Violation::from_error_details(details));
    if let Some(info) = details.error_info() {
        for key in METADATA_KEYS {
            if let Some(value) = info.metadata.get(key) {
                rejection = rejection.with_metadata(key, value.as_str());
            }
        }
        for key in LIST_METADATA_KEYS {
            if let Some(values) = info.metadata.get(key) {
                let values = values.split(',').filter(|value| !value.is_empty()).map(str::to_owned).collect();
                rejection = rejection.with_metadata(key, MetadataValue::List(values));
            }
        }
    }
    rejection
}

/// Converts a status that did not originate in our services (transport, proxy, framework) by its
/// code alone.
fn from_bare_code(code: Code) -> Rejection {
    let reason = match code {
        Code::InvalidArgument => &reasons::INVALID_PARAMETER,
        Code::NotFound => &reasons::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => &CONFLICT,
        Code::ResourceExhausted => &reasons::OVERLOADED,
        // CANCELLED although the client still waits: the server cancelled, e.g. during shutdown.
        Code::Unavailable | Code::Cancelled => &reasons::UPSTREAM_UNAVAILABLE,
        Code::DeadlineExceeded => &reasons::DEADLINE_EXCEEDED,
        // Includes UNAUTHENTICATED and PERMISSION_DENIED: they concern the internal token, not the
        // client's.
        _ => return Rejection::new(&reasons::INTERNAL, "an unexpected error"),
    };
    Rejection::new(reason, reason.title)
}

#[cfg(test)]
mod tests;

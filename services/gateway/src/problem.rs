//! What a service's refusal becomes for the caller: the one place where gRPC statuses turn into HTTP reasons.

use http::{HeaderName, HeaderValue, StatusCode};
use palisade_middleware::rejection::{DOMAIN, MetadataValue, Reason, Rejection, Violation, reasons};
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Metadata of the services and header of the gateway: the answer was stored when the key was first used.
const REPLAYED: &str = "idempotency-replayed";

macro_rules! reasons {
    ($($name:ident = $slug:literal, $http:ident, $grpc:ident, $title:literal;)*) => {
        $(static $name: Reason = Reason::new($slug, StatusCode::$http, Code::$grpc, $title);)*

        /// What products and orders refuse for, beyond [`palisade_middleware::rejection::reasons`].
        static OWN: &[&Reason] = &[$(&$name),*];
    };
}

reasons! {
    PRODUCT_IN_USE = "product_in_use", CONFLICT, FailedPrecondition, "The product has open reservations";
    INSUFFICIENT_STOCK = "insufficient_stock", CONFLICT, FailedPrecondition, "There is not enough stock";
    UNKNOWN_PRODUCT = "unknown_product", UNPROCESSABLE_ENTITY, FailedPrecondition, "A product does not exist";
    PRODUCT_INACTIVE = "product_inactive", UNPROCESSABLE_ENTITY, FailedPrecondition, "A product is not for sale";
    ILLEGAL_TRANSITION = "illegal_transition", CONFLICT, FailedPrecondition, "The order cannot get this status from its present one";
    ORDER_IN_PROGRESS = "order_in_progress", CONFLICT, FailedPrecondition, "The order is not at its end";
    RESERVATION_EXPIRED = "reservation_expired", CONFLICT, FailedPrecondition, "The stock was not held long enough";
    // Not a 503: this order has failed for good, and the same request again would only be told so again.
    PRODUCTS_UNAVAILABLE = "products_unavailable", CONFLICT, FailedPrecondition, "The order failed because products did not answer in time";
    CONFLICT = "conflict", CONFLICT, Aborted, "The request conflicts with the present state";
}

/// Metadata of a refusal that is for the caller, by name; other keys stay inside.
const METADATA_KEYS: [&str; 3] = ["orderId", "productId", "status"];

/// As [`FACTS`], of several values.
const LIST_METADATA_KEYS: [&str; 1] = ["allowed"];

/// A service's refusal for the caller. Its words pass only with our `ErrorInfo`; the whole status goes to the log.
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

/// As [`rejection`] for a request whose query is checked by the service: a broken rule is an invalid parameter.
pub(crate) fn from_query_status(status: Status) -> Rejection {
    let rejection = rejection(status);
    if *rejection.reason() != reasons::VALIDATION_FAILED {
        return rejection;
    }
    let broken: Vec<_> = rejection.violations().iter().map(|broken| format!("{} {}", broken.field, broken.message)).collect();
    Rejection::new(&reasons::INVALID_PARAMETER, broken.join("; "))
}

/// The answer to a body in which `broken` rules were found here. It was sent on nevertheless, with values that the service is sure to refuse,
/// because the service owns the other rules: the caller learns of all that are broken at once.
pub(crate) fn merge_violations<T>(answer: Result<Response<T>, Status>, mut violations: Vec<Violation>) -> Result<Response<T>, Rejection> {
    let rejection = match answer {
        Ok(_) if !violations.is_empty() => return Err(Rejection::internal("a service accepted a body that breaks its rules")),
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

/// The header that tells the caller that this is the stored answer to an earlier request.
pub(crate) fn is_replayed<T>(answer: &Response<T>) -> Option<[(HeaderName, HeaderValue); 1]> {
    answer.metadata().contains_key(REPLAYED).then(replayed).map(|header| [header])
}

/// Whether this refusal is such an answer.
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

/// A status that none of our services made: a transport, a proxy, a framework. Only its code counts.
fn from_bare_code(code: Code) -> Rejection {
    let reason = match code {
        Code::InvalidArgument => &reasons::INVALID_PARAMETER,
        Code::NotFound => &reasons::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => &CONFLICT,
        Code::ResourceExhausted => &reasons::OVERLOADED,
        // CANCELLED with our caller still waiting: the other side gave up, e.g. while it was stopping.
        Code::Unavailable | Code::Cancelled => &reasons::UPSTREAM_UNAVAILABLE,
        Code::DeadlineExceeded => &reasons::DEADLINE_EXCEEDED,
        // Among them UNAUTHENTICATED and PERMISSION_DENIED: the internal token was refused, not the caller's.
        _ => return Rejection::new(&reasons::INTERNAL, "an unexpected error"),
    };
    Rejection::new(reason, reason.title)
}

#[cfg(test)]
mod tests;

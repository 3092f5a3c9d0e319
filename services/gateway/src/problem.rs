//! Error responses: the problem schema, and the only place where gRPC
//! statuses of the services become HTTP problems.

use http::{HeaderName, HeaderValue};
use palisade_middleware::{
    naming,
    rejection::{MetadataValue, Reason, Rejection, Violation, reasons},
};
use palisade_proto::reasons as shop_reasons;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use utoipa::ToSchema;

/// Metadata of the services and header of the gateway. Marks the stored response of an earlier
/// request with the same idempotency key.
const REPLAYED: &str = "idempotency-replayed";

/// Error response (RFC 9457 problem details).
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "schema only: the respond layer writes the JSON")]
pub(crate) struct Problem {
    /// URI of the problem type; ends with `code`.
    #[schema(example = "/problems/validation_failed")]
    r#type: String,
    /// Summary of the problem type; constant per `code`.
    #[schema(example = "Validation failed")]
    title: String,
    #[schema(example = 400)]
    status: u16,
    /// Explanation of this occurrence, for humans. The text may change.
    #[schema(example = "1 field is invalid")]
    detail: String,
    /// Stable, machine-readable error code. Clients should branch on this field.
    #[schema(example = "validation_failed")]
    code: String,
    /// Path of the request.
    #[schema(example = "/products")]
    instance: String,
    #[schema(required = false)]
    request_id: String,
    #[schema(required = false)]
    trace_id: String,
    /// All violated rules. Present for `validation_failed` only.
    #[schema(required = false)]
    errors: Vec<ProblemField>,
    /// Id of the affected order, if there is one.
    #[schema(required = false, format = Uuid)]
    order_id: String,
    /// Statuses that the order may change to. Present for `illegal_transition` only.
    #[schema(required = false)]
    allowed: Vec<String>,
}

/// Violated validation rule.
#[derive(ToSchema)]
#[expect(dead_code, reason = "schema only, like Problem")]
struct ProblemField {
    /// Path of the field in the request body.
    #[schema(example = "items[0].quantity")]
    field: String,
    /// Stable, machine-readable code of the rule.
    #[schema(example = "out_of_range")]
    code: String,
    message: String,
}

/// Error metadata that is passed to clients. Other keys are internal.
const METADATA_KEYS: [&str; 3] = ["orderId", "productId", "status"];

/// Like [`METADATA_KEYS`], with a list as value.
const LIST_METADATA_KEYS: [&str; 1] = ["allowed"];

/// Converts an error of a service. Its message is passed to the client only with an `ErrorInfo` of
/// our domain; the full status is logged.
pub(crate) fn rejection(status: Status) -> Rejection {
    let details = status.get_error_details();
    let reason =
        details.error_info().filter(|info| info.domain == naming::current().error_domain).and_then(|info| known_reason(&info.reason));
    let mut rejection = match reason {
        Some(reason) if reason.is_internal_fault() => Rejection::new(&reasons::INTERNAL, "an unexpected error"),
        Some(reason) => with_details(Rejection::new(reason, status.message().to_owned()), &details),
        None => from_bare_code(status.code()),
    };
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        rejection = rejection.with_retry_after(delay);
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
    let violations: Vec<_> = rejection.violations().iter().map(|violation| format!("{} {}", violation.field, violation.message)).collect();
    Rejection::new(&reasons::INVALID_PARAMETER, violations.join("; "))
}

/// Merges the violations found by the gateway with those of the service, so the client receives all
/// of them at once.
///
/// A body with violations is still sent, with values that the service rejects, because the service
/// owns the other rules.
pub(crate) fn merge_violations<T>(result: Result<Response<T>, Status>, mut violations: Vec<Violation>) -> Result<Response<T>, Rejection> {
    let rejection = match result {
        Ok(_) if !violations.is_empty() => return Err(Rejection::internal("a service accepted an invalid body")),
        Ok(response) => return Ok(response),
        Err(status) => rejection(status),
    };
    if violations.is_empty() || *rejection.reason() != reasons::VALIDATION_FAILED {
        return Err(rejection);
    }
    let of_other_fields = |upstream: &&Violation| violations.iter().all(|violation| violation.field != upstream.field);
    let upstream: Vec<_> = rejection.violations().iter().filter(of_other_fields).cloned().collect();
    violations.extend(upstream);
    Err(Rejection::invalid(violations))
}

/// Returns the replay header if this is the stored response of an earlier request.
pub(crate) fn replay_header<T>(response: &Response<T>) -> Option<[(HeaderName, HeaderValue); 1]> {
    response.metadata().contains_key(REPLAYED).then(replayed).map(|header| [header])
}

/// Whether this error is the stored response of an earlier request.
pub(crate) fn is_replayed(rejection: &Rejection) -> bool {
    rejection.headers().iter().any(|(name, _)| name == REPLAYED)
}

fn replayed() -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(REPLAYED), HeaderValue::from_static("true"))
}

fn known_reason(reason: &str) -> Option<&'static Reason> {
    reasons::find(reason).or_else(|| shop_reasons::find(reason))
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
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => &shop_reasons::CONFLICT,
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

//! Rejections from upstream statuses: maps the failure of a call to the response for our own
//! caller.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{DOMAIN, FAILURE_ORIGIN_HEADER, Reason, Rejection, Retry, Violation, reasons};
use crate::retry;

impl Rejection {
    /// Converts the status of a failed call into a rejection for our own caller.
    ///
    /// A rejection made by this middleware, remote or in our own client, keeps its reason, detail,
    /// violations and retry advice. For any other status only the code counts. If the target
    /// rejects our token or lacks the method, the fault is internal.
    ///
    /// ```
    /// use palisade_middleware::rejection::{Rejection, reasons};
    ///
    /// let upstream = tonic::Status::from(Rejection::new(&reasons::NOT_FOUND, "no such product"));
    /// assert_eq!(Rejection::from_upstream_status(upstream).reason(), &reasons::NOT_FOUND);
    /// let secret = tonic::Status::unknown("disk /dev/sda1 is full");
    /// assert_eq!(Rejection::from_upstream_status(secret).detail(), "an unexpected error");
    /// ```
    pub fn from_upstream_status(status: Status) -> Self {
        let details = status.get_error_details();
        let known_reason = details.error_info().filter(|info| info.domain == DOMAIN).and_then(|info| reason_by_slug(&info.reason));
        let mut rejection = match known_reason.unwrap_or_else(|| reason_by_code(status.code())) {
            internal if internal.is_internal_fault() => Self::new(&reasons::INTERNAL, "an unexpected error"),
            reason if known_reason.is_some() => Self::new(reason, status.message().to_owned()),
            reason => Self::new(reason, reason.title),
        };
        if known_reason.is_some() {
            rejection = rejection.with_violations(Violation::from_error_details(&details));
        }
        let wait = details.retry_info().and_then(|info| info.retry_delay);
        // Pushback takes precedence over `RetryInfo`: a service that has already retried in vain
        // forbids further retries.
        let retry = match (retry::pushback(status.metadata().as_ref()), wait) {
            (Retry::Unspecified, Some(wait)) => Retry::After(wait),
            (advice, _) => advice,
        };
        let origin = status.metadata().get(FAILURE_ORIGIN_HEADER).and_then(|name| name.to_str().ok()).map(str::to_owned);
        let rejection = match origin {
            Some(name) => rejection.with_origin(name),
            None => rejection,
        };
        rejection.with_retry(retry).with_source(status)
    }
}

fn reason_by_slug(reason: &str) -> Option<&'static Reason> {
    reasons::ALL.iter().copied().find(|known| known.slug.eq_ignore_ascii_case(reason))
}

impl Reason {
    /// Returns whether this reason, returned by a target, is a fault of this service: it supplied
    /// the token and chose the method, so its own caller cannot fix it.
    pub fn is_internal_fault(&self) -> bool {
        [&reasons::UNAUTHENTICATED, &reasons::TOKEN_EXPIRED, &reasons::UNIMPLEMENTED, &reasons::INTERNAL].contains(&self)
    }
}

impl Violation {
    /// Extracts the violations of a status (`BadRequest`).
    pub fn from_error_details(details: &ErrorDetails) -> Vec<Self> {
        let violations = details.bad_request().map(|request| request.field_violations.as_slice()).unwrap_or_default();
        violations.iter().map(|rule| Self::new(&rule.field, rule.reason.to_ascii_lowercase(), &rule.description)).collect()
    }
}

/// Maps the code of a foreign status, made by a transport, proxy, framework or another kind of
/// service.
fn reason_by_code(code: Code) -> &'static Reason {
    match code {
        Code::InvalidArgument | Code::OutOfRange => &reasons::INVALID_PARAMETER,
        Code::NotFound => &reasons::NOT_FOUND,
        Code::ResourceExhausted => &reasons::OVERLOADED,
        // CANCELLED while our caller still waits: the server cancelled the call, for example at
        // shutdown.
        Code::Unavailable | Code::Cancelled => &reasons::UPSTREAM_UNAVAILABLE,
        Code::DeadlineExceeded => &reasons::DEADLINE_EXCEEDED,
        _ => &reasons::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn upstream_rejection_is_preserved() {
        for reason in reasons::ALL {
            let upstream = Rejection::new(reason, "upstream detail").with_violations(vec![Violation::new("a[0]", "too_small", "is 0")]);
            for (retry, upstream) in [
                (Retry::After(Duration::from_millis(1500)), upstream.with_retry_after(Duration::from_millis(1500))),
                (Retry::Never, Rejection::new(reason, "upstream detail").with_retry(Retry::Never)),
                (Retry::Unspecified, Rejection::new(reason, "upstream detail")),
            ] {
                let violations = upstream.violations().to_vec();
                let rejection = Rejection::from_upstream_status(Status::from(upstream));
                assert_eq!(rejection.retry(), retry, "{}", reason.slug);
                if reason.is_internal_fault() {
                    assert_eq!((rejection.reason(), rejection.detail()), (&reasons::INTERNAL, "an unexpected error"));
                } else {
                    assert_eq!((rejection.reason(), rejection.detail()), (*reason, "upstream detail"));
                }
                assert_eq!(rejection.violations(), violations);
            }
        }
    }

    #[test]
    fn pushback_and_failure_origin_are_propagated() {
        let mut upstream =
            Status::from(Rejection::new(&reasons::OVERLOADED, "full").with_retry_after(Duration::from_secs(1)).with_origin("c"));
        upstream.metadata_mut().insert(crate::rejection::PUSHBACK_HEADER, "-1".parse().unwrap());
        let status = Status::from(Rejection::from_upstream_status(upstream));
        assert_eq!(retry::pushback(status.metadata().as_ref()), Retry::Never);
        assert_eq!(status.metadata().get(FAILURE_ORIGIN_HEADER).unwrap(), "c");
    }

    #[test]
    fn foreign_status_maps_by_code_only() {
        for (code, reason) in [
            (Code::Unavailable, &reasons::UPSTREAM_UNAVAILABLE),
            (Code::Unauthenticated, &reasons::INTERNAL),
            (Code::PermissionDenied, &reasons::INTERNAL),
            (Code::NotFound, &reasons::NOT_FOUND),
            (Code::DataLoss, &reasons::INTERNAL),
        ] {
            let rejection = Rejection::from_upstream_status(Status::new(code, "secret"));
            assert_eq!((rejection.reason(), rejection.detail().contains("secret")), (reason, false), "{code:?}");
        }
    }
}

//! Rejections from the statuses of called services, by the HTTP mapping of `google.rpc.Code`.

use http::StatusCode;
use tonic::{Code, Status};

use super::{Reason, Rejection, error_details, reasons};

macro_rules! code_reasons {
    ($($name:ident = $slug:literal, $http:expr, $grpc:ident, $title:literal;)*) => {
        $(static $name: Reason = Reason::new($slug, $http, Code::$grpc, $title);)*
    };
}

// Reasons that only foreign services give.
code_reasons! {
    OUT_OF_RANGE = "out_of_range", StatusCode::BAD_REQUEST, OutOfRange, "Value out of range";
    FAILED_PRECONDITION = "failed_precondition", StatusCode::BAD_REQUEST, FailedPrecondition, "Failed precondition";
    PERMISSION_DENIED = "permission_denied", StatusCode::FORBIDDEN, PermissionDenied, "Permission denied";
    ALREADY_EXISTS = "already_exists", StatusCode::CONFLICT, AlreadyExists, "Already exists";
    ABORTED = "aborted", StatusCode::CONFLICT, Aborted, "The request conflicts with another one";
    RESOURCE_EXHAUSTED = "resource_exhausted", StatusCode::TOO_MANY_REQUESTS, ResourceExhausted, "A quota is used up";
    CANCELLED = "cancelled", CLIENT_CLOSED_REQUEST, Cancelled, "The request was cancelled";
    UNKNOWN = "unknown", StatusCode::INTERNAL_SERVER_ERROR, Unknown, "Unknown error";
    DATA_LOSS = "data_loss", StatusCode::INTERNAL_SERVER_ERROR, DataLoss, "Data loss";
}

/// 499, which has no name in RFC 9110.
const CLIENT_CLOSED_REQUEST: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
};

impl From<Status> for Rejection {
    /// Passes the status of a called service on. A reason of our own domain is kept with its
    /// message, violations and retry delay. A foreign status is mapped by its code alone
    /// (`google.rpc.Code`), and its message is only logged.
    fn from(status: Status) -> Self {
        let details = error_details::read(&status);
        let rejection = match details.reason {
            Some(reason) if reason.is_internal_fault() => Self::new(&reasons::INTERNAL, "an unexpected error"),
            Some(reason) => Self::new(reason, status.message().to_owned()).with_violations(details.violations),
            None => {
                let reason = reason_of_code(status.code());
                Self::new(reason, reason.title)
            }
        };
        let rejection = match details.retry_delay {
            Some(wait) => rejection.with_retry_after(wait),
            None => rejection,
        };
        rejection.with_source(status)
    }
}

fn reason_of_code(code: Code) -> &'static Reason {
    match code {
        Code::InvalidArgument => &reasons::INVALID_PARAMETER,
        Code::OutOfRange => &OUT_OF_RANGE,
        Code::FailedPrecondition => &FAILED_PRECONDITION,
        Code::Unauthenticated => &reasons::UNAUTHENTICATED,
        Code::PermissionDenied => &PERMISSION_DENIED,
        Code::NotFound => &reasons::NOT_FOUND,
        Code::AlreadyExists => &ALREADY_EXISTS,
        Code::Aborted => &ABORTED,
        Code::ResourceExhausted => &RESOURCE_EXHAUSTED,
        Code::Cancelled => &CANCELLED,
        Code::Unimplemented => &reasons::UNIMPLEMENTED,
        Code::Unavailable => &reasons::UPSTREAM_UNAVAILABLE,
        Code::DeadlineExceeded => &reasons::DEADLINE_EXCEEDED,
        Code::DataLoss => &DATA_LOSS,
        // OK is no error.
        Code::Unknown | Code::Ok => &UNKNOWN,
        Code::Internal => &reasons::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rejection::{Retry, Violation};

    #[test]
    fn foreign_status_follows_the_google_mapping() {
        for (code, http) in [
            (Code::Cancelled, 499),
            (Code::Unknown, 500),
            (Code::InvalidArgument, 400),
            (Code::DeadlineExceeded, 504),
            (Code::NotFound, 404),
            (Code::AlreadyExists, 409),
            (Code::PermissionDenied, 403),
            (Code::Unauthenticated, 401),
            (Code::ResourceExhausted, 429),
            (Code::FailedPrecondition, 400),
            (Code::Aborted, 409),
            (Code::OutOfRange, 400),
            (Code::Unimplemented, 501),
            (Code::Internal, 500),
            (Code::Unavailable, 503),
            (Code::DataLoss, 500),
        ] {
            let rejection = Rejection::from(Status::new(code, "connect to 10.0.0.7 failed"));
            assert_eq!((rejection.reason().http.as_u16(), rejection.reason().grpc), (http, code));
            assert!(!rejection.detail().contains("10.0.0.7"), "{code:?}");
        }
    }

    #[test]
    fn own_status_keeps_its_reason() {
        let violation = Violation::new("name", "too_long", "must be shorter");
        let passed = Rejection::from(Status::from(Rejection::invalid(vec![violation.clone()]).with_retry_after(Duration::from_secs(2))));
        assert_eq!((passed.reason(), passed.violations()), (&reasons::VALIDATION_FAILED, &[violation][..]));
        assert_eq!(passed.retry(), Retry::After(Duration::from_secs(2)));
        let token = Rejection::from(Status::from(Rejection::new(&reasons::TOKEN_EXPIRED, "expired")));
        assert_eq!(token.reason(), &reasons::INTERNAL, "this service supplied the token");
    }
}

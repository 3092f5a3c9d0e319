//! Rejection reasons common to all APIs.

/// Declares a table of rejection reasons: a static for each, `ALL`, the list of them, and `find`.
/// One line is `NAME = "slug", HTTP_STATUS, GrpcCode, "Title";`.
///
/// ```
/// use palisade_resilience::rejection::Reason;
///
/// palisade_resilience::reasons! {
///     OUT_OF_PRINT = "out_of_print", GONE, NotFound, "The book is out of print";
/// }
/// assert_eq!(find("OUT_OF_PRINT"), Some(&OUT_OF_PRINT));
/// assert_eq!((OUT_OF_PRINT.slug, OUT_OF_PRINT.http.as_u16(), ALL.len()), ("out_of_print", 410, 1));
/// ```
#[macro_export]
macro_rules! reasons {
    ($($name:ident = $slug:literal, $http:ident, $grpc:ident, $title:literal;)*) => {
        $(
            #[doc = $title]
            pub static $name: $crate::rejection::Reason = $crate::rejection::Reason::new(
                $slug,
                $crate::rejection::StatusCode::$http,
                $crate::rejection::Code::$grpc,
                $title,
            );
        )*

        /// All reasons of this table.
        pub static ALL: &[&$crate::rejection::Reason] = &[$(&$name),*];

        /// Returns the reason with this `ErrorInfo.reason`, its slug in upper case.
        pub fn find(reason: &str) -> Option<&'static $crate::rejection::Reason> {
            ALL.iter().copied().find(|known| known.slug.eq_ignore_ascii_case(reason))
        }
    };
}

reasons! {
    INVALID_BODY = "invalid_body", BAD_REQUEST, InvalidArgument, "Invalid request body";
    VALIDATION_FAILED = "validation_failed", BAD_REQUEST, InvalidArgument, "Validation failed";
    INVALID_PARAMETER = "invalid_parameter", BAD_REQUEST, InvalidArgument, "Invalid path, query or header value";
    INVALID_CURSOR = "invalid_cursor", BAD_REQUEST, InvalidArgument, "Invalid cursor";
    UNAUTHENTICATED = "unauthenticated", UNAUTHORIZED, Unauthenticated, "A valid bearer token is required";
    TOKEN_EXPIRED = "token_expired", UNAUTHORIZED, Unauthenticated, "The token has expired";
    INSUFFICIENT_SCOPE = "insufficient_scope", FORBIDDEN, PermissionDenied, "Insufficient scope";
    NOT_FOUND = "not_found", NOT_FOUND, NotFound, "Not found";
    METHOD_NOT_ALLOWED = "method_not_allowed", METHOD_NOT_ALLOWED, Unimplemented, "Method not allowed";
    VERSION_MISMATCH = "version_mismatch", PRECONDITION_FAILED, FailedPrecondition, "Version mismatch";
    BODY_TOO_LARGE = "body_too_large", PAYLOAD_TOO_LARGE, ResourceExhausted, "Request body too large";
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, InvalidArgument, "The body must be application/json";
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused", UNPROCESSABLE_ENTITY, FailedPrecondition, "The idempotency key was used with another body";
    REQUEST_IN_PROGRESS = "request_in_progress", CONFLICT, Aborted, "The first request with this key is still running";
    REQUEST_TIMEOUT = "request_timeout", REQUEST_TIMEOUT, DeadlineExceeded, "The request did not arrive in time";
    RATE_LIMITED = "rate_limited", TOO_MANY_REQUESTS, ResourceExhausted, "Rate limit exceeded";
    OVERLOADED = "overloaded", SERVICE_UNAVAILABLE, Unavailable, "The service is overloaded";
    STREAM_ENDED = "stream_ended", SERVICE_UNAVAILABLE, Unavailable, "Stream closed by the server, reconnect";
    UPSTREAM_UNAVAILABLE = "upstream_unavailable", SERVICE_UNAVAILABLE, Unavailable, "An upstream service is unavailable";
    NOT_READY = "not_ready", SERVICE_UNAVAILABLE, Unavailable, "The process is not ready";
    DEADLINE_EXCEEDED = "deadline_exceeded", GATEWAY_TIMEOUT, DeadlineExceeded, "Deadline exceeded";
    UNIMPLEMENTED = "unimplemented", NOT_IMPLEMENTED, Unimplemented, "Method not implemented";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, Internal, "Unexpected error";
}

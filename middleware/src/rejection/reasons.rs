//! The reasons that any API of this kind has.

use http::StatusCode;
use tonic::Code;

use super::Reason;

macro_rules! reasons {
    ($($name:ident = $slug:literal, $http:ident, $grpc:ident, $title:literal;)*) => {
        $(#[doc = $title] pub static $name: Reason = Reason::new($slug, StatusCode::$http, Code::$grpc, $title);)*

        /// All of the above, for tests and for the documentation.
        pub static ALL: &[&Reason] = &[$(&$name),*];
    };
}

reasons! {
    INVALID_BODY = "invalid_body", BAD_REQUEST, InvalidArgument, "The body is not what this route takes";
    VALIDATION_FAILED = "validation_failed", BAD_REQUEST, InvalidArgument, "A rule is broken";
    INVALID_PARAMETER = "invalid_parameter", BAD_REQUEST, InvalidArgument, "A path, query or header value is invalid";
    INVALID_CURSOR = "invalid_cursor", BAD_REQUEST, InvalidArgument, "The cursor is not one of this query";
    UNAUTHENTICATED = "unauthenticated", UNAUTHORIZED, Unauthenticated, "A valid bearer token is needed";
    TOKEN_EXPIRED = "token_expired", UNAUTHORIZED, Unauthenticated, "The token has expired";
    INSUFFICIENT_SCOPE = "insufficient_scope", FORBIDDEN, PermissionDenied, "The token lacks a scope";
    NOT_FOUND = "not_found", NOT_FOUND, NotFound, "There is no such thing";
    METHOD_NOT_ALLOWED = "method_not_allowed", METHOD_NOT_ALLOWED, Unimplemented, "The resource does not have this method";
    VERSION_MISMATCH = "version_mismatch", PRECONDITION_FAILED, FailedPrecondition, "The resource has another version";
    BODY_TOO_LARGE = "body_too_large", PAYLOAD_TOO_LARGE, OutOfRange, "The body is too large";
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, InvalidArgument, "The body must be application/json";
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused", UNPROCESSABLE_ENTITY, FailedPrecondition, "The idempotency key was used with another body";
    REQUEST_IN_PROGRESS = "request_in_progress", CONFLICT, Aborted, "The first request with this key is still running";
    RATE_LIMITED = "rate_limited", TOO_MANY_REQUESTS, ResourceExhausted, "The caller's rate is exceeded";
    OVERLOADED = "overloaded", SERVICE_UNAVAILABLE, Unavailable, "The service has no room for more work";
    STREAM_ENDED = "stream_ended", SERVICE_UNAVAILABLE, Unavailable, "The stream has to end here, not what it tells of: open it again";
    UPSTREAM_UNAVAILABLE = "upstream_unavailable", SERVICE_UNAVAILABLE, Unavailable, "A service behind this one does not answer";
    NOT_READY = "not_ready", SERVICE_UNAVAILABLE, Unavailable, "The process is not ready for requests";
    DEADLINE_EXCEEDED = "deadline_exceeded", GATEWAY_TIMEOUT, DeadlineExceeded, "The deadline passed";
    UNIMPLEMENTED = "unimplemented", NOT_IMPLEMENTED, Unimplemented, "The method does not exist";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, Internal, "An unexpected error";
}

//! Headers that may be sent once: one rule for all routes.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{
    HeaderMap, HeaderName,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, DATE, FROM, HOST, IF_MODIFIED_SINCE, IF_RANGE,
        IF_UNMODIFIED_SINCE, MAX_FORWARDS, ORIGIN, PROXY_AUTHORIZATION, RANGE, REFERER, USER_AGENT,
    },
};
use palisade_middleware::rejection::{Rejection, reasons};

/// `Idempotency-Key` (IETF draft).
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `Last-Event-ID` (HTML living standard, section 9.2).
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Request headers that are no list (RFC 9110, section 5.5): the singletons of HTTP and those of
/// this API. `traceparent` is not among them: W3C Trace Context has a repeated one ignored.
const SINGLETONS: [HeaderName; 21] = [
    AUTHORIZATION,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    FROM,
    HOST,
    IDEMPOTENCY_KEY,
    IF_MODIFIED_SINCE,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    LAST_EVENT_ID,
    MAX_FORWARDS,
    ORIGIN,
    PROXY_AUTHORIZATION,
    RANGE,
    REFERER,
    USER_AGENT,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-request-timeout"),
];

/// Rejects a request that repeats a singleton, whatever its route.
pub(crate) async fn reject_repeated(request: Request, next: Next) -> Result<Response, Rejection> {
    for name in &SINGLETONS {
        single_value(request.headers(), name)?;
    }
    Ok(next.run(request).await)
}

/// Returns the value of a header that must not be repeated.
pub(crate) fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(http::HeaderValue::as_bytes)),
        _ => Err(Rejection::new(&reasons::INVALID_PARAMETER, format!("header {name} must not be repeated"))),
    }
}

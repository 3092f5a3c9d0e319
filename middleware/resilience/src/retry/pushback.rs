//! Retry pushback of a response: `grpc-retry-pushback-ms` (gRFC A6) or HTTP `Retry-After`.

use std::time::Duration;

use http::{HeaderMap, Response, StatusCode, header};
use httpdate::parse_http_date;

use crate::{
    grpc_status,
    rejection::{PUSHBACK_HEADER, Retry},
};

/// Upper bound of `Retry-After`, whatever a proxy asks for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Returns the pushback in the metadata of a response (gRFC A6). An unreadable value forbids a
/// retry.
pub fn pushback(metadata: &HeaderMap) -> Retry {
    match metadata.get(PUSHBACK_HEADER) {
        None => Retry::Unspecified,
        Some(value) => match value.to_str().ok().filter(|text| is_digits(text)).and_then(|text| text.parse().ok()) {
            Some(millis) => Retry::After(Duration::from_millis(millis)),
            None => Retry::Never,
        },
    }
}

/// Returns the pushback in the head of a response. If that is not gRPC, `Retry-After` applies to
/// 429 and 503.
pub(crate) fn pushback_of_head<B>(response: &Response<B>) -> Retry {
    let headers = response.headers();
    if grpc_status::from_headers(headers).is_some() || response.status() == StatusCode::OK {
        return pushback(headers);
    }
    pushback_of_http(response)
}

/// Returns the pushback of an HTTP response: `Retry-After` of 429 and 503.
pub(crate) fn pushback_of_http<B>(response: &Response<B>) -> Retry {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            retry_after(response.headers()).map_or(Retry::Unspecified, |wait| Retry::After(wait.min(MAX_RETRY_AFTER)))
        }
        _ => Retry::Unspecified,
    }
}

/// Parses seconds or a date (RFC 9110 §5.6.7). A date is relative to the response's own `Date`, so
/// that the clocks need not agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let value = text(header::RETRY_AFTER)?;
    if is_digits(value) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = |text| parse_http_date(text).ok();
    Some(date(value)?.duration_since(date(text(header::DATE)?)?).unwrap_or(Duration::ZERO))
}

/// Whether the text is a number without a sign, which the parser of integers accepts.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PUSHBACK: header::HeaderName = header::HeaderName::from_static(PUSHBACK_HEADER);
    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";

    fn answer(status: u16, headers: &[(header::HeaderName, &'static str)]) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    #[test]
    fn retry_after_parses_seconds_and_dates() {
        for (text, wait) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("31", Some(30)),
            ("18446744073709551615", Some(30)),
            ("18446744073709551616", Some(30)),
            ("+7", None),
            ("Sun, 06 Nov 1994 12:00:09 GMT", Some(9)),
            ("Mon, 07 Nov 1994 12:00:00 GMT", Some(30)),
            ("Sun, 06 Nov 1994 11:59:59 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let response = answer(503, &[(header::RETRY_AFTER, text), (header::DATE, NOON)]);
            let expected = wait.map_or(Retry::Unspecified, |wait| Retry::After(Duration::from_secs(wait)));
            assert_eq!(pushback_of_head(&response), expected, "{text:?}");
        }
        let without_clock = answer(503, &[(header::RETRY_AFTER, NOON)]);
        assert_eq!(pushback_of_head(&without_clock), Retry::Unspecified);
    }

    #[test]
    fn pushback_is_a_number_without_a_sign() {
        for (text, expected) in [
            ("250", Retry::After(Duration::from_millis(250))),
            ("0", Retry::After(Duration::ZERO)),
            ("+250", Retry::Never),
            ("-1", Retry::Never),
            ("", Retry::Never),
            ("18446744073709551616", Retry::Never),
        ] {
            assert_eq!(pushback(answer(200, &[(PUSHBACK, text)]).headers()), expected, "{text:?}");
        }
    }

    #[test]
    fn retry_after_applies_only_to_429_and_503() {
        for (status, counts) in [(429, true), (503, true), (200, false), (404, false), (500, false), (502, false)] {
            let advice = pushback_of_head(&answer(status, &[(header::RETRY_AFTER, "2")]));
            assert_eq!(advice == Retry::After(Duration::from_secs(2)), counts, "{status}");
        }
        let mut grpc = answer(503, &[(header::RETRY_AFTER, "2"), (PUSHBACK, "250")]);
        grpc.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
        assert_eq!(pushback_of_head(&grpc), Retry::After(Duration::from_millis(250)));
    }
}

//! `Idempotency-Key`: a client can repeat a request without repeating its effect.

use axum::extract::FromRequestParts;
use http::request::Parts;
use palisade_middleware::{
    rejection::{Rejection, reasons},
    retry::IdempotencyKeyed,
    trace,
};
use tonic::Response;

use super::singletons::{IDEMPOTENCY_KEY, single_value};
use crate::problem;

/// Maximum length of a key, characters.
const MAX_CHARS: usize = 255;

/// The key without quotes; empty if the header is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey(pub(crate) String);

/// Builds a call that the client stack may retry if it carries a key.
pub(crate) fn retryable_with_key<T>(message: T, key: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if !key.is_empty() {
        request.extensions_mut().insert(IdempotencyKeyed);
    }
    request
}

/// Records the outcome of the key on the request's span, if the response reveals it.
pub(crate) fn record_key_outcome<T>(key: &str, result: &Result<Response<T>, Rejection>) {
    if key.is_empty() {
        return;
    }
    let outcome = match result {
        Ok(response) if problem::replay_header(response).is_some() => "replay",
        Ok(_) => "new",
        Err(rejection) if problem::is_replayed(rejection) => "replay",
        Err(rejection) if *rejection.reason() == reasons::IDEMPOTENCY_KEY_REUSED => "conflict",
        Err(rejection) if *rejection.reason() == reasons::REQUEST_IN_PROGRESS => "in_progress",
        // The order exists and has failed.
        Err(rejection) if rejection.metadata().iter().any(|(name, _)| *name == "orderId") => "new",
        Err(_) => return,
    };
    trace::record("app.idempotency.outcome", outcome);
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let Some(value) = single_value(&parts.headers, &IDEMPOTENCY_KEY)? else { return Ok(Self(String::new())) };
        parse(value).map(Self).ok_or_else(|| {
            Rejection::new(&reasons::INVALID_PARAMETER, "header idempotency-key must be 1 to 255 visible ASCII characters, quoted or bare")
        })
    }
}

/// Parses a bare key or a string (RFC 8941, section 3.3.3) without spaces.
fn parse(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let key = match text.strip_prefix('"') {
        Some(quoted) => unescape(quoted.strip_suffix('"')?)?,
        None => text.to_owned(),
    };
    ((1..=MAX_CHARS).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())).then_some(key)
}

/// Removes the escapes of a quoted string: only `"` and `\` may be escaped, and `"` must be.
fn unescape(quoted: &str) -> Option<String> {
    let mut key = String::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    while let Some(next) = rest.next() {
        key.push(match next {
            '"' => return None,
            '\\' => rest.next().filter(|escaped| matches!(escaped, '"' | '\\'))?,
            plain => plain,
        });
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_and_bare_key_are_equal() {
        for text in [r#""a-1""#, "a-1"] {
            assert_eq!(parse(text.as_bytes()).as_deref(), Some("a-1"));
        }
        assert_eq!(parse(br#""a\"\\b""#).as_deref(), Some(r#"a"\b"#));
        assert_eq!(parse("k".repeat(MAX_CHARS).as_bytes()).map(|key| key.len()), Some(MAX_CHARS));
    }

    #[test]
    fn invalid_key_is_rejected() {
        let long = "k".repeat(MAX_CHARS + 1);
        for text in ["", "\"\"", "\"", "\"a", "\"a\"b\"", "\"a\\", "\"\\a\"", "a b", "\"a b\"", "é", long.as_str()] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}

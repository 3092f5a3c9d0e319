//! Problem documents (RFC 9457).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde::Serialize;
use serde_json::Value;

use super::RequestInfo;
use crate::{
    context::RequestId,
    naming,
    rejection::{MetadataValue, Rejection, Retry, reasons},
    trace,
};

/// Media type of problem documents.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Encodes the problem document and logs the rejection. `replaced` are the headers of the replaced
/// response; `Allow` and similar ones are preserved.
pub(super) fn write<R>(rejection: &Rejection, request: &RequestInfo, replaced: Option<&HeaderMap>) -> Response<Either<R, Full<Bytes>>> {
    if request.has_record {
        rejection.log_detail();
    } else {
        rejection.log();
    }
    let body = Bytes::from(body(rejection, request));
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Either::Right(if request.is_head { Full::default() } else { Full::new(body) }));
    *response.status_mut() = rejection.reason().http;
    #[cfg(feature = "opentelemetry")]
    response.extensions_mut().insert(crate::request_log::Refusal::of(rejection));
    let headers = response.headers_mut();
    if let Some(written) = replaced {
        headers.extend(written.iter().filter(|(name, _)| !describes_body(name)).map(|(name, value)| (name.clone(), value.clone())));
    }
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if let Retry::After(wait) = rejection.retry() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
    } else if rejection.reason().http.as_u16() == 503 {
        // A 503 always has `Retry-After`.
        headers.insert(header::RETRY_AFTER, HeaderValue::from(1));
    }
    headers.extend(rejection.headers().iter().cloned());
    if let Some(challenge) = challenge(rejection) {
        // A more specific challenge set by a layer takes precedence.
        headers.entry(header::WWW_AUTHENTICATE).or_insert(challenge);
    }
    response
}

/// Encodes the problem document of a rejection without a response of its own, such as the last
/// event of a stream.
pub(crate) fn problem_json(rejection: &Rejection, path: &str, request_id: Option<RequestId>) -> String {
    body(rejection, &RequestInfo { request_id, path: path.into(), is_head: false, has_record: false })
}

/// Default challenge for token rejections (RFC 6750 §3; for 401 also RFC 9110 §15.5.2).
fn challenge(rejection: &Rejection) -> Option<HeaderValue> {
    match rejection.reason() {
        reason if reason.http == StatusCode::UNAUTHORIZED => HeaderValue::try_from(naming::current().bearer_challenge()).ok(),
        reason if *reason == reasons::INSUFFICIENT_SCOPE => Some(HeaderValue::from_static("Bearer error=\"insufficient_scope\"")),
        _ => None,
    }
}

fn describes_body(name: &http::HeaderName) -> bool {
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING].contains(name)
}

/// Rounds up to whole seconds, so that a client never retries too early.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Problem document. Members are in reading order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(flatten)]
    metadata: BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError<'a>>,
}

#[derive(Serialize)]
struct FieldError<'a> {
    field: &'a str,
    code: &'a str,
    message: &'a str,
}

fn body(rejection: &Rejection, request: &RequestInfo) -> String {
    let reason = rejection.reason();
    let metadata = rejection.metadata().iter().map(|(key, value)| {
        let value = match value {
            MetadataValue::Text(text) => text.clone().into(),
            MetadataValue::List(list) => list.clone().into(),
            MetadataValue::Json(value) => value.clone(),
        };
        (*key, value)
    });
    let errors = rejection.violations().iter().map(|v| FieldError { field: &v.field, code: &v.code, message: &v.message });
    let problem = Problem {
        r#type: naming::current().problem_type(reason.slug),
        title: reason.title,
        status: reason.http.as_u16(),
        detail: rejection.detail(),
        code: reason.slug,
        instance: &request.path,
        request_id: request.request_id.as_deref(),
        trace_id: trace::current_trace_id_text(),
        metadata: metadata.collect(),
        errors: errors.collect(),
    };
    // Cannot fail: only strings, numbers and maps with string keys.
    serde_json::to_string(&problem).unwrap_or_default()
}

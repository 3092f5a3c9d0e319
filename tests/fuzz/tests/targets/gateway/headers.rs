//! Conditions, idempotency keys and event ids in the headers of a request.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};

use super::{GATEWAY, get};
use crate::{
    fake_services::{ID, VERSION},
    targets::input::{digits, lines},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Number of events of the order.
const EVENTS: u128 = 4;

/// What a list of entity tags says about the tag of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Malformed,
    Any,
    /// Whether the tag is in the list, and whether a weak tag is equal to it.
    Tags {
        strong: bool,
        weak: bool,
    },
}

/// Reads `*` or a list of entity tags (RFC 9110, sections 5.6.1 and 8.8.3) byte by byte.
fn read_list(text: &[u8]) -> List {
    enum At {
        Start,
        Weak,
        Tag { is_weak: bool, opaque: Vec<u8> },
        End,
    }
    if text.trim_ascii() == b"*" && text.iter().all(|byte| b"* \t".contains(byte)) {
        return List::Any;
    }
    let (mut at, mut strong, mut weak) = (At::Start, false, false);
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        at = match (at, byte) {
            (At::Start, b'"') => At::Tag { is_weak: false, opaque: Vec::new() },
            (At::Start, b'W') if bytes.next() == Some(b'/') => At::Weak,
            (At::Weak, b'"') => At::Tag { is_weak: true, opaque: Vec::new() },
            (At::Tag { is_weak, opaque }, b'"') => {
                let is_ours = opaque == VERSION.to_string().as_bytes();
                (strong, weak) = (strong || (is_ours && !is_weak), weak || (is_ours && is_weak));
                At::End
            }
            (At::Tag { is_weak, mut opaque }, b'!'..=b'~' | 0x80..) => {
                opaque.push(byte);
                At::Tag { is_weak, opaque }
            }
            (at @ (At::Start | At::End), b' ' | b'\t') => at,
            (At::Start | At::End, b',') => At::Start,
            _ => return List::Malformed,
        };
    }
    if matches!(at, At::Start | At::End) { List::Tags { strong, weak } } else { List::Malformed }
}

/// Conditions are evaluated as RFC 9110 section 13 says: a strong comparison for `If-Match`, a weak
/// one for `If-None-Match`, 412 or 304 if false, and 400 for a list that is malformed.
pub(crate) fn conditions(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let (is_write, is_match) = (first & 1 == 1, first & 2 == 2);
    let name = if is_match { header::IF_MATCH } else { header::IF_NONE_MATCH };
    let Some(mut headers) = lines(&name, rest) else { return };
    let joined = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b","[..]);
    let list = if headers.is_empty() { None } else { Some(read_list(&joined)) };
    let holds = match (list, is_match) {
        (None, _) => Some(true),
        (Some(List::Malformed), _) => None,
        (Some(List::Any), is_match) => Some(is_match),
        (Some(List::Tags { strong, .. }), true) => Some(strong),
        (Some(List::Tags { strong, weak }), false) => Some(!strong && !weak),
    };
    let answer = if is_write {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut request = Request::put(format!("/orders/{ID}/status")).body(Body::from(r#"{"status": "CANCELLED"}"#)).unwrap();
        *request.headers_mut() = headers;
        GATEWAY.with(|gateway| gateway.send(request))
    } else {
        get(&format!("/orders/{ID}"), headers)
    };
    let expected = match holds {
        None => StatusCode::BAD_REQUEST,
        Some(true) => StatusCode::OK,
        Some(false) if is_match || is_write => StatusCode::PRECONDITION_FAILED,
        Some(false) => StatusCode::NOT_MODIFIED,
    };
    assert_eq!(answer.status, expected, "{name}: {}", joined.escape_ascii());
}

/// Returns the key of a header: bare, or a quoted string of RFC 8941.
fn key_of(text: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    if text.first() == Some(&b'"') {
        let mut bytes = text[1..].iter();
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => key.push(*bytes.next().filter(|byte| b"\"\\".contains(byte))?),
                byte => key.push(*byte),
            }
        }
        if bytes.next().is_some() {
            return None;
        }
    } else {
        key.extend_from_slice(text);
    }
    ((1..=255).contains(&key.len()) && key.iter().all(|byte| (b'!'..=b'~').contains(byte))).then_some(key)
}

/// The service receives the key without its quotes, or the request is rejected.
pub(crate) fn idempotency_key(input: &[u8]) {
    let Some(mut headers) = lines(&IDEMPOTENCY_KEY, input) else { return };
    let expected = match headers.len() {
        0 => Some(Vec::new()),
        1 => key_of(input),
        _ => None,
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut request =
        Request::post("/orders").body(Body::from(format!(r#"{{"items": [{{"productId": "{ID}", "quantity": 1}}]}}"#))).unwrap();
    *request.headers_mut() = headers;
    GATEWAY.with(|gateway| {
        *gateway.orders.create_request.lock().unwrap() = None;
        let answer = gateway.send(request);
        let received = gateway.orders.create_request.lock().unwrap().take().map(|request| request.idempotency_key.into_bytes());
        assert_eq!(received, expected);
        assert_eq!(answer.status, if expected.is_some() { StatusCode::CREATED } else { StatusCode::BAD_REQUEST });
    });
}

/// An id of up to 18 digits continues after that event. Without further events the answer is 204.
pub(crate) fn last_event_id(input: &[u8]) {
    let Some(headers) = lines(&LAST_EVENT_ID, input) else { return };
    let id = match headers.len() {
        0 => Some(0),
        1 if input.is_empty() => Some(0),
        1 => digits(input).filter(|_| input.len() <= 18),
        _ => None,
    };
    let answer = get(&format!("/orders/{ID}/events"), headers);
    match id {
        None => assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "invalid_parameter")),
        Some(id) if id >= EVENTS => assert_eq!(answer.status, StatusCode::NO_CONTENT),
        Some(id) => {
            assert_eq!(answer.status, StatusCode::OK);
            let text = String::from_utf8(answer.body).unwrap();
            let ids: Vec<u128> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
            assert_eq!(ids, (id + 1..=EVENTS).collect::<Vec<_>>());
        }
    }
}

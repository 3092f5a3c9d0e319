//! Headers of callers and of called services: addresses, ids, trace context and retry delays.

use std::{cell::RefCell, collections::HashSet, net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Empty;
use palisade_middleware::{
    method_table::MethodTable,
    rejection::{PUSHBACK_HEADER, Rejection, Retry},
    request_context::{REQUEST_ID_HEADER, RequestContextLayer},
    respond::Protocol,
    retry::{self, RetryLayer},
    trace::{ClientTraceLayer, ServerTraceLayer, TrustBoundary, sampling::Sampling},
    trusted_proxies::TrustedProxies,
};
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service, service_fn};

use crate::targets::{
    deadlines::{block_on, infallible},
    input::{digits, lines},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Client that the trusted proxy has seen.
const CLIENT: &str = "198.51.100.7";
/// Longest delay that `Retry-After` may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A trusted proxy adds the address of its client in any of the usual ways. Whatever the client
/// sent, its address is the one that the proxy added. Without a proxy the header has no meaning.
pub(crate) fn forwarded_for(input: &[u8]) {
    let Some(sent) = lines(&FORWARDED_FOR, input) else { return };
    let proxies = TrustedProxies::parse("10.0.0.0/8, 2001:db8::/32").unwrap();
    let (proxy, client): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), CLIENT.parse().unwrap());
    assert_eq!(proxies.client_ip(client, &sent), client);

    let texts: Vec<&[u8]> = sent.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let joined = texts.iter().flat_map(|text| [*text, b", "]).chain([CLIENT.as_bytes()]).collect::<Vec<_>>().concat();
    let own_line = texts.iter().copied().chain([CLIENT.as_bytes()]).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut last_line: Vec<_> = texts.iter().map(|text| text.to_vec()).collect();
    match last_line.last_mut() {
        Some(last) => last.extend_from_slice(format!(",{CLIENT}").as_bytes()),
        None => last_line.push(CLIENT.into()),
    }
    for written in [vec![joined], own_line, last_line] {
        let headers: HeaderMap = written.into_iter().map(|line| (FORWARDED_FOR, HeaderValue::from_bytes(&line).unwrap())).collect();
        assert_eq!(proxies.client_ip(proxy, &headers), client, "{headers:?}");
    }
}

thread_local! {
    static NO_METHODS: RequestContextLayer = RequestContextLayer(MethodTable::new(&[]).unwrap().into());
}

/// A request id of 1 to 64 letters, digits and hyphens is kept. Any other is replaced by a UUID.
pub(crate) fn request_id(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let is_valid = (1..=64).contains(&input.len()) && input.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let mut request = Request::new(());
    request.headers_mut().insert(REQUEST_ID_HEADER, value.clone());
    let mut service = NO_METHODS.with(|layer| layer.layer(service_fn(|_: Request<()>| infallible(Response::new(())))));
    let response = block_on(service.call(request)).unwrap();
    let answered = &response.headers()[REQUEST_ID_HEADER];
    assert_eq!(answered == value, is_valid);
    assert!(is_valid || uuid::Uuid::try_parse(answered.to_str().unwrap()).unwrap().get_version_num() == 4);
}

/// Version, trace id, parent id and flags of a valid `traceparent` (W3C Trace Context, section
/// 3.2).
fn trace_fields(text: &[u8]) -> Option<[&[u8]; 3]> {
    let is_hex = |text: &[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let fields: Vec<_> = text.splitn(5, |byte| *byte == b'-').collect();
    let [version, trace_id, parent_id, flags, ..] = fields[..] else { return None };
    let has_lengths = [version, trace_id, parent_id, flags].map(<[u8]>::len) == [2, 32, 16, 2];
    let has_digits = [version, trace_id, parent_id, flags].into_iter().all(is_hex);
    let is_zero = |text: &[u8]| text.iter().all(|byte| *byte == b'0');
    let may_have_more = fields.len() == 4 || version != b"00";
    let is_valid = has_lengths && has_digits && may_have_more && version != b"ff" && !is_zero(trace_id) && !is_zero(parent_id);
    is_valid.then_some([trace_id, parent_id, flags])
}

/// Sends the headers through a server and a client. Returns the headers of the call that it makes.
fn passed_on(sent: &HeaderMap) -> HeaderMap {
    // Follows the decision of the caller, and exports nothing.
    Sampling { exported: false, boundary: TrustBoundary::Internal, ratio: 0.0, local: None, tail: None }.install();
    let client = ClientTraceLayer { protocol: Protocol::Grpc, server_address: "products".into(), server_port: None };
    let seen = RefCell::new(HeaderMap::new());
    let handler = service_fn(|_: Request<()>| {
        let called = service_fn(|request: Request<()>| {
            *seen.borrow_mut() = request.headers().clone();
            infallible(Response::new(Empty::<Bytes>::new()))
        });
        client.layer(called).call(Request::new(()))
    });
    let mut request = Request::new(());
    *request.headers_mut() = sent.clone();
    drop(ServerTraceLayer::new(Protocol::Grpc).layer(handler).call(request));
    seen.into_inner()
}

/// The first line is `traceparent`, the others are `tracestate`. A valid context is passed on with
/// its trace id and sampling decision; with an invalid one a new trace begins, without its state.
pub(crate) fn traceparent(input: &[u8]) {
    let mut split = input.splitn(2, |byte| *byte == b'\n');
    let (parent, states) = (split.next().unwrap_or_default(), split.next());
    let Some(mut headers) = lines(&HeaderName::from_static("tracestate"), states.unwrap_or_default()) else { return };
    let Ok(value) = HeaderValue::from_bytes(parent) else { return };
    headers.insert("traceparent", value);
    let passed = passed_on(&headers);
    let [trace_id, parent_id, flags] = trace_fields(passed["traceparent"].as_bytes()).expect("a valid context");
    if let Some([sent_id, sent_parent, sent_flags]) = trace_fields(parent) {
        assert_eq!(trace_id, sent_id);
        assert_ne!(parent_id, sent_parent, "each hop is a span of its own");
        let is_sampled = u8::from_str_radix(std::str::from_utf8(sent_flags).unwrap(), 16).unwrap() & 1 == 1;
        assert_eq!(flags, if is_sampled { b"01" } else { b"00" });
        let sent: Vec<_> = headers.get_all("tracestate").iter().map(HeaderValue::as_bytes).collect();
        if let Some(state) = passed.get("tracestate") {
            // Whole members only, each of them sent by the caller.
            let sent = sent.join(&b","[..]);
            let sent: HashSet<_> = sent.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
            assert!(state.as_bytes().split(|byte| *byte == b',').all(|member| sent.contains(member.trim_ascii())), "{state:?}");
        }
    } else {
        assert!(parent.is_empty() || !parent.windows(32).any(|part| part == trace_id));
        assert_eq!((flags, passed.get("tracestate")), (&b"00"[..], None));
    }
}

/// Digits are a delay in milliseconds. Any other value forbids a retry (gRFC A6).
pub(crate) fn pushback(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let headers = HeaderMap::from_iter([(HeaderName::from_static(PUSHBACK_HEADER), value)]);
    let expected = digits(input)
        .and_then(|millis| u64::try_from(millis).ok())
        .map_or(Retry::Never, |millis| Retry::After(Duration::from_millis(millis)));
    assert_eq!(retry::pushback(&headers), expected);
}

/// Returns the delay between a response 503 with these headers and the next attempt.
fn delay_after(headers: &HeaderMap) -> Duration {
    let attempts = RefCell::new(Vec::new());
    let server = |_: Request<Body>| {
        attempts.borrow_mut().push(Instant::now());
        let mut response = Response::new(Empty::<Bytes>::new());
        if attempts.borrow().len() == 1 {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            *response.headers_mut() = headers.clone();
        }
        std::future::ready(Ok::<_, Rejection>(response))
    };
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = block_on(async {
        // A budget of its own: the failures of other inputs must not deny this retry.
        RetryLayer::http("fuzz", &retry::Config::default()).layer(service_fn(&server)).call(request).await
    });
    assert_eq!(response.map_err(|rejection| rejection.reason().slug).unwrap().status(), StatusCode::OK);
    let attempts = attempts.into_inner();
    assert_eq!(attempts.len(), 2);
    attempts[1] - attempts[0]
}

/// `Retry-After` is a number of seconds, or a date that is relative to `Date` on the second line.
/// It delays the retry by that time, at most 30 s. Any other value leaves the usual backoff.
pub(crate) fn retry_after(input: &[u8]) {
    let mut split = input.splitn(2, |byte| *byte == b'\n').map(HeaderValue::from_bytes);
    let (Some(Ok(after)), date) = (split.next(), split.next()) else { return };
    let mut headers = HeaderMap::from_iter([(header::RETRY_AFTER, after.clone())]);
    if let Some(Ok(date)) = &date {
        headers.insert(header::DATE, date.clone());
    }
    let seconds = digits(after.as_bytes());
    let found = delay_after(&headers);
    assert!(found <= MAX_RETRY_AFTER);
    if let Some(seconds) = seconds {
        assert_eq!(found, Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)).min(MAX_RETRY_AFTER));
    } else if !matches!(date, Some(Ok(_))) {
        assert!(found <= Duration::from_millis(retry::Config::default().base_ms), "{found:?} after {after:?}");
    }
}

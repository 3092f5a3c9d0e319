//! Timeouts of callers: `grpc-timeout` and `x-request-timeout`, read by the server's layer and
//! written by the client's.

use std::{cell::RefCell, convert::Infallible, future::Ready, future::ready, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::Empty;
use palisade_middleware::{
    context::Context,
    deadline::{AttemptTimeoutLayer, DeadlineLayer, REQUEST_TIMEOUT_HEADER, TotalDeadlineLayer},
    rejection::Rejection,
    respond::Protocol,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};
use tower::{Layer, Service, service_fn};

use crate::targets::input::{digits, lines};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// More than `grpc-timeout` can express.
const LONGEST: Duration = Duration::from_secs(400_000_000_000);
/// Most that `grpc-timeout` can express.
const MAX_DIGITS: u128 = 99_999_999;

type Answer = Ready<Result<Response<Empty<Bytes>>, Rejection>>;

thread_local! {
    /// Its clock stands still.
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    static GRPC: DeadlineLayer = DeadlineLayer::new(Protocol::Grpc, LONGEST, LONGEST);
    static HTTP: DeadlineLayer = DeadlineLayer::new(Protocol::Http, LONGEST, LONGEST);
    static ATTEMPT: AttemptTimeoutLayer = AttemptTimeoutLayer::new("fuzz", LONGEST);
}

/// Returns the time that a request with these headers has, or `None` if the layer rejects it.
fn allowed(layer: &DeadlineLayer, headers: HeaderMap) -> Option<Duration> {
    let seen = RefCell::new(None);
    let handler = service_fn(|request: Request<()>| -> Answer {
        let limit = Context::of(&request).unwrap().deadline.unwrap();
        *seen.borrow_mut() = Some(limit.remaining(Instant::now()));
        ready(Ok(Response::new(Empty::new())))
    });
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    request.extensions_mut().insert(Context::background());
    RUNTIME.with(|runtime| {
        let _guard = runtime.enter();
        drop(layer.layer(handler).call(request));
    });
    seen.into_inner()
}

/// Returns the `grpc-timeout` that a call with this one sends.
fn sent(headers: HeaderMap) -> Option<Vec<u8>> {
    let seen = RefCell::new(None);
    let server = service_fn(|request: Request<()>| -> Answer {
        *seen.borrow_mut() = request.headers().get(GRPC_TIMEOUT).map(|value| value.as_bytes().to_vec());
        ready(Ok(Response::new(Empty::new())))
    });
    let total = TotalDeadlineLayer { limit: LONGEST, min_attempt: Duration::ZERO };
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    RUNTIME.with(|runtime| {
        let _guard = runtime.enter();
        ATTEMPT.with(|attempt| drop(total.layer(attempt.layer(server)).call(request)));
    });
    seen.into_inner()
}

/// `TimeoutValue TimeoutUnit` of the gRPC specification, nanoseconds.
fn nanos_of(value: &[u8]) -> Option<u128> {
    let (unit, number) = value.split_last()?;
    let number = digits(number).filter(|_| value.len() <= 9)?;
    let nanos = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(number * nanos)
}

/// A valid timeout is used exactly, 0 is rejected, any other text leaves the default. A client
/// sends the timeout on without adding time, and loses at most a hundred-thousandth.
pub(crate) fn grpc_timeout(input: &[u8]) {
    let Some(headers) = lines(&GRPC_TIMEOUT, input).filter(|headers| headers.len() == 1) else { return };
    let expected = nanos_of(input);
    let found = GRPC.with(|layer| allowed(layer, headers.clone())).map(|time| time.as_nanos());
    assert_eq!(found, expected.map_or(Some(LONGEST.as_nanos()), |nanos| Some(nanos).filter(|nanos| *nanos > 0)));
    let Some(asked) = expected.filter(|nanos| *nanos > 0) else { return };
    let sent = nanos_of(&sent(headers).unwrap()).unwrap();
    assert!(sent <= asked, "{sent} ns of {asked}");
    assert!(asked - sent <= asked / 100_000 || sent == MAX_DIGITS * 1_000_000_000, "{sent} ns of {asked}");
}

/// One whole number of milliseconds from 1 to 2^64 - 1 is used exactly; anything else is rejected.
pub(crate) fn request_timeout(input: &[u8]) {
    let Some(headers) = lines(&REQUEST_TIMEOUT_HEADER, input) else { return };
    let millis = digits(input).filter(|millis| (1..=u64::MAX.into()).contains(millis));
    let expected = match (headers.len(), millis) {
        (0, _) => Some(LONGEST),
        (1, Some(millis)) => Some(Duration::from_millis(u64::try_from(millis).unwrap()).min(LONGEST)),
        _ => None,
    };
    assert_eq!(HTTP.with(|layer| allowed(layer, headers)), expected);
}

/// Runs a future whose timers end at once, in order.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// A service without a failure of its own.
pub(crate) fn infallible<T>(value: T) -> Ready<Result<T, Infallible>> {
    ready(Ok(value))
}

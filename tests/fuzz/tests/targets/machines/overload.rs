//! Adaptive limit and retry budget, through their layers.

use std::{cell::Cell, cell::RefCell, collections::VecDeque, pin::Pin, rc::Rc, task::Poll, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use palisade_middleware::{
    adaptive_limit::{self, AdaptiveLimitLayer},
    context::Context,
    priority::Priority,
    rejection::Rejection,
    respond::Protocol,
    retry::{self, RetryLayer},
};
use tokio::sync::oneshot;
use tonic::body::Body;
use tower::{Layer, Service, service_fn};

use crate::targets::{deadlines::block_on, input::Input};

const PRIORITIES: [Priority; 3] = [Priority::Critical, Priority::Default, Priority::Batch];
const MAX_LIMIT: u32 = 8;

type Call = Pin<Box<dyn Future<Output = Result<(), Rejection>>>>;

/// Handlers that run, each until its sender is used or dropped.
#[derive(Default)]
struct Handlers {
    waiting: RefCell<VecDeque<oneshot::Sender<()>>>,
    running: Cell<u32>,
}

struct Running(Rc<Handlers>);

impl Running {
    fn start(handlers: &Rc<Handlers>) -> Self {
        handlers.running.set(handlers.running.get() + 1);
        assert!(handlers.running.get() <= MAX_LIMIT, "the limit is exceeded");
        Self(handlers.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

/// Whatever the callers do, also if they go away at any time: no more handlers run than the limit
/// allows, every call ends, and no permit is lost.
pub(crate) fn adaptive_limit(input: &[u8]) {
    let mut bytes = Input::new(input);
    let config = adaptive_limit::Config {
        initial_limit: 1 + u32::from(bytes.below(8)),
        min_limit: 1,
        max_limit: MAX_LIMIT,
        window_ms: 1 + bytes.millis() % 100,
        min_latency_ms: 1,
        queue_max: f64::from(bytes.below(4)) + 1.0,
        ..adaptive_limit::Config::default()
    };
    assert!(config.validate().is_ok());
    let layer = AdaptiveLimitLayer::new(Protocol::Http, &config);
    let handlers = Rc::new(Handlers::default());
    let seen = handlers.clone();
    let mut service = layer.layer(service_fn(move |_: Request<()>| {
        let (release, released) = oneshot::channel();
        seen.waiting.borrow_mut().push_back(release);
        let running = Running::start(&seen);
        async move {
            let _ = released.await;
            drop(running);
            Ok::<_, Rejection>(Response::new(Empty::<Bytes>::new()))
        }
    }));
    block_on(async move {
        let mut calls: Vec<Call> = Vec::new();
        while !bytes.is_empty() {
            match bytes.below(6) {
                0..=2 if calls.len() < 64 => {
                    let mut context = Context { priority: PRIORITIES[usize::from(bytes.below(3))], ..Context::background() };
                    context.client_address = Some([192, 0, 2, bytes.below(4)].into());
                    if bytes.flag() {
                        context = context.with_deadline(tokio::time::Instant::now() + Duration::from_millis(bytes.millis()));
                    }
                    let call = service.call(Request::builder().extension(context).body(()).unwrap());
                    calls.push(Box::pin(async { call.await.map(drop) }));
                }
                3 => drop(handlers.waiting.borrow_mut().pop_front()),
                4 if !calls.is_empty() => drop(calls.swap_remove(usize::from(bytes.byte()) % calls.len())),
                _ => tokio::time::advance(Duration::from_millis(bytes.millis() % 1_000)).await,
            }
            calls = pending(calls).await;
        }
        while !calls.is_empty() {
            handlers.waiting.borrow_mut().clear();
            tokio::time::advance(Duration::from_millis(100)).await;
            calls = pending(calls).await;
        }
        assert_eq!(handlers.running.get(), 0);
        let last = service.call(Request::builder().extension(Context::background()).body(()).unwrap());
        let last = pending(vec![Box::pin(async { last.await.map(drop) })]).await;
        assert_eq!((last.len(), handlers.running.get()), (1, 1), "an idle server admits a call at once");
    });
}

/// Polls each call once and returns those that have not ended.
async fn pending(mut calls: Vec<Call>) -> Vec<Call> {
    std::future::poll_fn(|cx| {
        calls.retain_mut(|call| call.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    calls
}

/// Calls one after the other, of which any attempt may fail. The number of attempts is that of gRFC
/// A6: a failure takes a token, a success returns a tenth, and half of the tokens end the retries.
pub(crate) fn retry_budget(input: &[u8]) {
    const MAX_ATTEMPTS: u32 = 3;
    let mut bytes = Input::new(input);
    let tokens = 1 + u32::from(bytes.below(10));
    let config = retry::Config { tokens, max_attempts: MAX_ATTEMPTS, ..retry::Config::default() };
    let layer = RetryLayer::http("fuzz", &config);
    let mut tenths = tokens * 10;
    while !bytes.is_empty() {
        let outcomes = bytes.byte();
        let attempts = Cell::new(0);
        let server = |_: Request<Body>| {
            let fails = outcomes >> attempts.get() & 1 == 1;
            attempts.set(attempts.get() + 1);
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            std::future::ready(Ok::<_, Rejection>(response))
        };
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = block_on(async { layer.layer(service_fn(&server)).call(request).await });
        let mut expected = 0;
        let is_success = loop {
            let fails = outcomes >> expected & 1 == 1;
            expected += 1;
            if !fails {
                tenths = (tenths + 1).min(tokens * 10);
                break true;
            }
            tenths = tenths.saturating_sub(10);
            if expected == MAX_ATTEMPTS || tenths <= tokens * 5 {
                break false;
            }
        };
        assert_eq!(attempts.get(), expected, "{tenths} tenths of {tokens} tokens are left");
        assert_eq!(response.map_err(|rejection| rejection.reason().slug).unwrap().status().is_success(), is_success);
    }
}

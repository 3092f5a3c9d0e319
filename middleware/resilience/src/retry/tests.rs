//! Test server with prepared responses behind the retry layer; the cases are in the submodules.

mod attempts;
mod cost;
mod over_http;
mod pauses;
mod spans;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::{ServiceExt, service_fn, util::BoxCloneService};

use super::*;
use crate::{
    circuit_breaker::{self, CircuitBreakerLayer},
    context::{self, Context as RequestContext},
    deadline::{self, CallDeadline},
    rejection::{FAILURE_ORIGIN_HEADER, PUSHBACK_HEADER, Retry as Advice, reasons},
    request_context::PREVIOUS_ATTEMPTS_HEADER,
    time_limit::{LimitOrigin, TimeLimit},
};

type Answer = Result<Response<Full<Bytes>>, Rejection>;

/// One attempt as the server received it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    after_ms: u128,
    body: Bytes,
    previous_attempts: Option<HeaderValue>,
}

/// A server with prepared responses; the last one repeats.
#[derive(Clone)]
struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    layer: RetryLayer,
    answer: fn(usize) -> Answer,
}

const PATH: &str = "/a.B/Get";

#[expect(clippy::unnecessary_wraps, reason = "same type as the other responses")]
fn status(code: Code) -> Answer {
    Ok(Status::new(code, "").into_http())
}

fn pushback(code: Code, value: &'static str) -> Answer {
    let mut answer = status(code)?;
    answer.headers_mut().insert(PUSHBACK_HEADER, HeaderValue::from_static(value));
    Ok(answer)
}

/// Response of an HTTP server, or of a proxy in front of a gRPC server.
#[expect(clippy::unnecessary_wraps, reason = "same type as the other responses")]
fn http(status: u16, retry_after: Option<&'static str>) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
    if let Some(value) = retry_after {
        answer.headers_mut().insert("retry-after", HeaderValue::from_static(value));
    }
    Ok(answer)
}

/// A connection failure instead of a response.
fn connection_failure(unsent: bool) -> Answer {
    Err(Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "").with_source(crate::rejection::TransportError::new("an example", unsent, false)))
}

impl Server {
    fn new(config: &Config, answer: fn(usize) -> Answer) -> Self {
        let layer = RetryLayer::new("products", config, [PATH].into_iter().collect());
        Self { seen: Arc::default(), layer, answer }
    }

    /// An HTTP server.
    fn http(answer: fn(usize) -> Answer) -> Self {
        Self { seen: Arc::default(), layer: RetryLayer::http("idp", &Config::default()), answer }
    }

    fn answering(answer: fn(usize) -> Answer) -> Self {
        Self::new(&Config::default(), answer)
    }

    async fn call(&self, request: Request<Body>) -> Result<Response<PeekedBody<Full<Bytes>>>, Rejection> {
        let (this, start) = (self.clone(), Instant::now());
        let service = BoxCloneService::new(service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move {
                let (parts, body) = request.into_parts();
                let seen = Seen {
                    after_ms: start.elapsed().as_millis(),
                    body: body.collect().await.expect("a body").to_bytes(),
                    previous_attempts: parts.headers.get(PREVIOUS_ATTEMPTS_HEADER).cloned(),
                };
                let mut all = this.seen.lock();
                all.push(seen);
                (this.answer)(all.len())
            }
        }));
        self.layer.layer(service).call(request).await
    }

    fn tokens(&self) -> f64 {
        self.layer.0.budget.tokens()
    }

    /// Calls an idempotent method; returns the number of attempts, the final code and the pushback.
    async fn attempts(&self) -> (usize, Code, Advice) {
        let answer = self.call(get()).await;
        let (code, advice) = match &answer {
            Ok(response) => {
                let status = response.headers().get("grpc-status");
                (status.map_or(Code::Unknown, |status| Code::from_bytes(status.as_bytes())), super::pushback::pushback(response.headers()))
            }
            Err(rejection) => (rejection.reason().grpc, rejection.retry()),
        };
        (self.seen.lock().len(), code, advice)
    }
}

fn get() -> Request<Body> {
    Request::post(PATH).body(Body::new(Full::new(Bytes::from_static(b"message")))).unwrap()
}

fn post() -> Request<Body> {
    Request::post("/a.B/Post").body(Body::empty()).unwrap()
}

//! Fault injection for game days: latency, errors, aborts and hangs for chosen methods, set at run
//! time.
//!
//! Disabled unless `server.fault_injection.enabled` is set: then the admin port serves `/faults`.
//! `PUT` replaces all rules, `DELETE` removes them, `GET` lists them. Rules exist only in memory: a
//! restart removes them all. The gauge `palisade_faults_active` is the number of active rules.
//!
//! ```sh
//! # Half of all reservations take 800 ms longer, plus or minus 200 ms;
//! # one in ten calls to any method is rejected.
//! curl -X PUT localhost:9465/faults -d '{"rules": [
//!   {"name": "slow", "method": "palisade.products.v1.ProductsService/ReserveStock", "rate": 0.5,
//!    "kind": {"latency": {"ms": 800, "jitter_ms": 200}}},
//!   {"name": "sick", "method": "*", "rate": 0.1, "kind": {"error": "overloaded"}}]}'
//! curl -X DELETE localhost:9465/faults
//! ```
//!
//! A method is named as in the metrics: `package.Service/Method`, or verb and route template (`GET
//! /products/{id}`). A name that ends in `*` matches by prefix. The kinds are:
//!
//! - `{"latency": {"ms", "jitter_ms"}}`
//! - `{"error": slug}` with a slug of [`crate::rejection::reasons`] that is a server failure
//! - `"abort"`: the stream, or the HTTP/1 connection, breaks without a response
//! - `"hang"`: no response until the deadline or the caller ends the request
//!
//! The latencies of all rules that hit a request add up and come first; then the first other rule
//! that hits decides. Health checks and reflection are never hit.

mod body;
mod config;
mod decision;
mod faults;
mod rule;

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::{BoxError, Layer, Service};

use self::faults::{FaultKind, InjectedFault};
use crate::rejection::Rejection;

pub use body::FaultBody;
pub use config::Config;
pub use faults::Faults;
pub use rule::{Kind, Rule};

/// Injects the faults of these [`Faults`] in place of the handler, so that all outer layers see
/// them as the handler's.
///
/// Costs one atomic load while there are no rules.
#[derive(Debug, Clone)]
pub struct FaultLayer(pub Faults);

impl<S> Layer<S> for FaultLayer {
    type Service = Fault<S>;

    fn layer(&self, inner: S) -> Fault<S> {
        Fault { inner, faults: self.0.clone() }
    }
}

/// See [`FaultLayer`].
#[derive(Debug, Clone)]
pub struct Fault<S> {
    inner: S,
    faults: Faults,
}

impl<S, B, R> Service<Request<B>> for Fault<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<Rejection>,
    R: Body<Error: Into<BoxError>>,
{
    type Response = Response<FaultBody<R>>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future, S, B>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(InjectedFault { delay, kind: end }) = self.faults.decide(&request) else {
            return ResponseFuture { state: State::Handling { inner: self.inner.call(request) } };
        };
        let next = if let Some(end) = end {
            Next::End { end }
        } else {
            // The service polled ready makes the call; the clone takes its place.
            let clone = self.inner.clone();
            Next::Handle { service: std::mem::replace(&mut self.inner, clone), request: Box::new(request) }
        };
        // No timer without a delay: it would take a millisecond.
        let sleep = (!delay.is_zero()).then(|| tokio::time::sleep(delay));
        ResponseFuture { state: State::Waiting { sleep, next: Some(next) } }
    }
}

/// What follows the delay.
#[derive(Debug)]
enum Next<S, B> {
    // Boxed: the future of a request without faults stays as small as the handler's.
    Handle { service: S, request: Box<Request<B>> },
    End { end: FaultKind },
}

pin_project! {
    /// The future of [`Fault`].
    #[derive(Debug)]
    pub struct ResponseFuture<F, S, B> {
        #[pin]
        state: State<F, S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F, S, B> {
        Handling { #[pin] inner: F },
        Waiting { #[pin] sleep: Option<Sleep>, next: Option<Next<S, B>> },
        Hanging,
    }
}

impl<S, B, R> Future for ResponseFuture<S::Future, S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Rejection>,
{
    type Output = Result<Response<FaultBody<R>>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Handling { inner } => {
                    return inner.poll(cx).map(|result| result.map(|response| response.map(FaultBody::of)).map_err(Into::into));
                }
                StateProjection::Waiting { sleep, next } => {
                    if let Some(sleep) = sleep.as_pin_mut() {
                        ready!(sleep.poll(cx));
                    }
                    next.take().expect("future polled after completion")
                }
                // The deadline or the caller ends it.
                StateProjection::Hanging => return Poll::Pending,
            };
            match next {
                Next::Handle { mut service, request } => state.set(State::Handling { inner: service.call(*request) }),
                Next::End { end: FaultKind::Error(rejection) } => return Poll::Ready(Err(rejection)),
                Next::End { end: FaultKind::Abort } => return Poll::Ready(Ok(Response::new(FaultBody::broken()))),
                Next::End { end: FaultKind::Hang } => state.set(State::Hanging),
            }
        }
    }
}

#[cfg(test)]
mod tests;

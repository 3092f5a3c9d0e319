//! Faults on purpose: latency, errors, broken connections and silence for chosen methods, set while the process runs, for game days.
//!
//! Off unless `server.faults.enabled` is set: then the admin port has `/faults`. `PUT` replaces all rules, `DELETE` takes them away,
//! `GET` shows them. Rules live in memory only: a restart ends every one of them, and the gauge `palisade_faults_active` says how many
//! there are.
//!
//! ```sh
//! # Half of all reservations take 800 ms longer, give or take 200; every tenth call to anything is refused.
//! curl -X PUT localhost:9465/faults -d '{"rules": [
//!   {"name": "slow", "method": "palisade.products.v1.ProductsService/ReserveStock", "rate": 0.5,
//!    "kind": {"latency": {"ms": 800, "jitter_ms": 200}}},
//!   {"name": "sick", "method": "*", "rate": 0.1, "kind": {"error": "overloaded"}}]}'
//! curl -X DELETE localhost:9465/faults
//! ```
//!
//! A method is named as on the metrics: `package.Service/Method`, or verb and route template (`GET /products/{id}`); a name that ends
//! in `*` stands for all that begin so. The kinds are `{"latency": {"ms", "jitter_ms"}}`, `{"error": slug}` with a slug of
//! [`crate::rejection::reasons`] that is the server's failure, `"abort"` (the stream, or the HTTP/1 connection, breaks without an
//! answer) and `"hang"` (nothing, until the deadline or the caller ends it). All latencies that are drawn add up and come first; then the
//! first other rule that is drawn decides. Probes and reflection are never hit.

mod admin;
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

use self::faults::{InjectedFault, FaultKind};
use crate::rejection::Rejection;

pub use body::FaultBody;
pub use config::Config;
pub use faults::Faults;
pub use rule::{Kind, Rule};

/// Does to requests what the rules of these [`Faults`] say, in the handler's place: everything outside takes it for the handler's doing.
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
            // The one that is ready now is the one to call later.
            let clone = self.inner.clone();
            Next::Handle { service: std::mem::replace(&mut self.inner, clone), request: Box::new(request) }
        };
        // No timer for no delay: it would take a millisecond.
        let sleep = (!delay.is_zero()).then(|| tokio::time::sleep(delay));
        ResponseFuture { state: State::Waiting { sleep, next: Some(next) } }
    }
}

/// What comes after the delay.
#[derive(Debug)]
enum Next<S, B> {
    // Boxed: the future of a request that no rule hits stays as small as its handler's.
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
                    next.take().expect("a future is not polled after it was ready")
                }
                // Whoever waits for it has a timer, or goes away.
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

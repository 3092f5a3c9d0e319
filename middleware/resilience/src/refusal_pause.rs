//! Pause of connections that ignore `Retry-After`: their rejections are answered late.
//!
//! A rejection costs little, but a client that repeats its request at once makes the server reject
//! it many thousand times a second, until nothing is left for the requests that it could serve. The
//! next rejections of such a connection are held back until it may retry. The connection then sends
//! less: an HTTP/1.1 connection waits for its answer, and an HTTP/2 connection for free streams. A
//! held-back rejection holds no permit. A request that can be served is never held back.

mod history;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::{Layer, Service};

use self::history::RefusalHistory;
use crate::{
    counter::AtomicCounter,
    metrics::register_observable_sum,
    protocol::Protocol,
    rejection::{Rejection, RejectionExtension, Retry, reasons},
};

/// Rejections of one connection. A request extension, set by the server's accept loop; without it
/// rejections are answered at once.
#[derive(Debug, Clone, Default)]
pub struct ConnectionRefusals(Arc<Mutex<RefusalHistory>>);

/// Holds back rejections of connections that ignore `Retry-After`. Placed outside every layer with
/// a permit or a timer.
///
/// ```
/// use palisade_resilience::{refusal_pause::RefusalPauseLayer, protocol::Protocol};
///
/// let layer = RefusalPauseLayer::new(Protocol::Http);
/// ```
#[derive(Debug, Clone)]
pub struct RefusalPauseLayer {
    protocol: Protocol,
    held_back: Arc<AtomicCounter>,
}

impl RefusalPauseLayer {
    /// Creates the layer of a server. Over gRPC every rejection is answered at once: the callers
    /// are services with retry budgets, and a late rejection would hold a permit of theirs.
    pub fn new(protocol: Protocol) -> Self {
        let held_back = Arc::new(AtomicCounter::new());
        register_observable_sum(&held_back, crate::gauge!("palisade.rejections.held_back"), AtomicCounter::get);
        Self { protocol, held_back }
    }
}

impl<S> Layer<S> for RefusalPauseLayer {
    type Service = RefusalPause<S>;

    fn layer(&self, inner: S) -> RefusalPause<S> {
        RefusalPause { inner, layer: self.clone() }
    }
}

/// Service of [`RefusalPauseLayer`].
#[derive(Debug, Clone)]
pub struct RefusalPause<S> {
    inner: S,
    layer: RefusalPauseLayer,
}

impl<S, B, R> Service<Request<B>> for RefusalPause<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Rejection>,
{
    type Response = Response<R>;
    type Error = Rejection;
    type Future = ResponseFuture<S::Future, Response<R>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Rejection>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let RefusalPauseLayer { protocol, held_back } = &self.layer;
        let connection = request.extensions().get::<ConnectionRefusals>().filter(|_| *protocol == Protocol::Http).cloned();
        let arrived = Instant::now();
        ResponseFuture { inner: Some(self.inner.call(request)), connection, arrived, pause: None, held_back: held_back.clone() }
    }
}

pin_project! {
    /// Future of [`RefusalPause`].
    pub struct ResponseFuture<F, T> {
        #[pin]
        inner: Option<F>,
        connection: Option<ConnectionRefusals>,
        arrived: Instant,
        pause: Option<Pause<T>>,
        held_back: Arc<AtomicCounter>,
    }
}

/// Result that is held back.
struct Pause<T> {
    timer: Pin<Box<Sleep>>,
    result: Option<Result<T, Rejection>>,
    _counted: Counted,
}

struct Counted(Arc<AtomicCounter>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

impl<F, R, E> Future for ResponseFuture<F, Response<R>>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Rejection>,
{
    type Output = Result<Response<R>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            let result = ready!(inner.poll(cx)).map_err(Into::into);
            // The request is over: what it held is released before the pause.
            this.inner.set(None);
            let pause = this
                .connection
                .as_ref()
                .zip(retry_after(&result))
                .and_then(|(connection, wait)| connection.0.lock().refuse(*this.arrived, Instant::now(), wait));
            let Some(until) = pause else { return Poll::Ready(result) };
            this.held_back.increment();
            let counted = Counted(this.held_back.clone());
            *this.pause = Some(Pause { timer: Box::pin(tokio::time::sleep_until(until)), result: Some(result), _counted: counted });
        }
        let Some(pause) = this.pause else { unreachable!("future polled after completion") };
        ready!(pause.timer.as_mut().poll(cx));
        let result = pause.result.take();
        *this.pause = None;
        Poll::Ready(result.expect("set with the pause"))
    }
}

/// Returns the wait of a rejection because of load.
fn retry_after<R>(result: &Result<Response<R>, Rejection>) -> Option<Duration> {
    let rejection = match result {
        Ok(response) => &*response.extensions().get::<RejectionExtension>()?.0,
        Err(rejection) => rejection,
    };
    let by_load = [&reasons::OVERLOADED, &reasons::RATE_LIMITED].contains(&rejection.reason());
    match rejection.retry() {
        Retry::After(wait) if by_load => Some(wait),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

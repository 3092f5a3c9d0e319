//! CLIENT span of a logical call, including retries. All attempts propagate its context.

mod open;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{self, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tonic::Code;
use tower::{Layer, Service};

use super::{Scope, ScopeGuard, propagation::inject};
use crate::{
    body::{BodyObserver, End, InstrumentedBody},
    grpc_status,
    protocol::Protocol,
    rejection::RejectionExtension,
    response_outcome::{ResponseOutcome, Role},
    streaming_call::is_stream,
    time_limit::CALLER_DEADLINE,
};

/// Starts the CLIENT span and injects `traceparent`.
///
/// ```
/// use palisade_resilience::{protocol::Protocol, trace::ClientTraceLayer};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let call = service_fn(async |_| {
///     Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
/// });
/// let layer = ClientTraceLayer {
///     protocol: Protocol::Grpc,
///     server_address: "products.internal".into(),
///     server_port: Some(5000),
/// };
/// layer.layer(call).oneshot(http::Request::new(())).await?;
/// # Ok::<_, std::convert::Infallible>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ClientTraceLayer {
    /// Protocol of the calls. HTTP requests need absolute URIs, which `url.full` is built from.
    pub protocol: Protocol,
    /// `server.address`: the configured host, or the target name if there are several hosts.
    pub server_address: std::sync::Arc<str>,
    /// `server.port`. `None` if there are several.
    pub server_port: Option<u16>,
}

impl<S> Layer<S> for ClientTraceLayer {
    type Service = ClientTrace<S>;

    fn layer(&self, inner: S) -> ClientTrace<S> {
        ClientTrace { inner, target: self.clone() }
    }
}

/// Service of [`ClientTraceLayer`].
#[derive(Debug, Clone)]
pub struct ClientTrace<S> {
    inner: S,
    target: ClientTraceLayer,
}

impl<S, B, R> Service<Request<B>> for ClientTrace<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<InstrumentedBody<R, SpanFinisher>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let protocol = self.target.protocol;
        let scope = open::start_span(&self.target, &request);
        let stream = is_stream(&request);
        inject(&scope.context(), request.headers_mut());
        let attempts = (protocol == Protocol::Grpc && scope.is_observed()).then(SentAttempts::default);
        if let Some(attempts) = &attempts {
            request.extensions_mut().insert(attempts.clone());
        }
        let inner = scope.run(|| self.inner.call(request));
        let outcome = ResponseOutcome::pending(Role::Client(protocol)).of_stream(stream);
        ResponseFuture { inner, finisher: Some(SpanFinisher { scope, protocol, outcome, attempts, refusal: None, finished: false }) }
    }
}

/// Number of attempts of a call that were sent; in the extensions of its request.
#[derive(Debug, Clone, Default)]
pub(crate) struct SentAttempts(Arc<AtomicU32>);

impl SentAttempts {
    /// Counts an attempt before it is sent.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back an attempt that was not sent.
    pub(crate) fn take_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self) -> i64 {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// Ends the span with the outcome of the complete response.
#[derive(Debug)]
pub struct SpanFinisher {
    scope: Scope,
    protocol: Protocol,
    outcome: ResponseOutcome,
    attempts: Option<SentAttempts>,
    /// Problem code of a rejection by this process.
    refusal: Option<&'static str>,
    finished: bool,
}

impl SpanFinisher {
    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if let Some(attempts) = &self.attempts {
            self.scope.record("app.rpc.attempts", attempts.count());
        }
        if let Some(code) = self.refusal {
            self.scope.record("app.problem.code", code);
            self.scope.record("app.refused_by", "self");
        }
        let error = match self.protocol {
            Protocol::Grpc => {
                let code = self.outcome.grpc_code();
                self.scope.record("rpc.status_code", grpc_status::name(code));
                if self.outcome.is_caller_timeout() {
                    CALLER_DEADLINE.into()
                } else if code == Code::Ok {
                    "".into()
                } else {
                    grpc_status::name(code).into()
                }
            }
            Protocol::Http => {
                let outcome = self.outcome.http_outcome();
                if let Some(status) = outcome.status {
                    self.scope.record("http.response.status_code", i64::from(status));
                }
                outcome.error_type()
            }
        };
        if error.is_empty() || self.outcome.is_ended_by_reader() {
            return;
        }
        self.scope.record("error.type", error.clone());
        // A time that the caller chose is no failure of the target.
        if error != CALLER_DEADLINE {
            self.scope.record("otel.status_code", "ERROR");
        }
    }
}

impl BodyObserver for SpanFinisher {
    type Entered<'a> = ScopeGuard<'a>;

    fn enter(&mut self) -> ScopeGuard<'_> {
        self.scope.enter()
    }

    fn on_end(&mut self, end: End<'_>) {
        self.outcome.record_end(end);
        self.finish();
    }
}

impl Drop for SpanFinisher {
    fn drop(&mut self) {
        self.finish();
    }
}

pin_project! {
    /// Future of [`ClientTrace`].
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        finisher: Option<SpanFinisher>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<InstrumentedBody<R, SpanFinisher>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(finisher) = this.finisher.as_ref() else { unreachable!("future polled after completion") };
        let response = ready!(finisher.scope.run(|| this.inner.poll(cx)))?;
        let Some(mut finisher) = this.finisher.take() else { unreachable!("checked above") };
        finisher.outcome.record_head(&response);
        finisher.refusal = response.extensions().get().map(|RejectionExtension(rejection)| rejection.reason().slug);
        Poll::Ready(Ok(InstrumentedBody::observe(response, finisher)))
    }
}

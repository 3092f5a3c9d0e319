//! SERVER span of a request, from the request head to the last byte of the response or the
//! cancellation.

mod new_span;

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll, ready},
};

use http::{HeaderValue, Request, Response};
use http_body::Body;
use opentelemetry::{ContextGuard, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use pin_project_lite::pin_project;
use tonic::Code;
use tower::{Layer, Service};
use tracing::{Span, span::Entered};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{
    TRACE_ID_HEADER,
    propagation::{current_trace_id, extract},
    sampling::{self, Decision},
    trace_context,
};
use crate::{
    body::{BodyObserver, End, InstrumentedBody},
    context::Context,
    grpc_status,
    protocol::Protocol,
    request_log::{CurrentRequest, RequestLog},
    response_outcome::{ResponseOutcome, Role},
    time_limit::CALLER_DEADLINE,
    trusted_proxies::TrustedProxies,
};

/// Starts the SERVER span, continues the caller's trace, and adds `x-trace-id` to HTTP responses.
///
/// ```
/// use palisade_resilience::{respond::Protocol, trace::ServerTraceLayer};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| {
///     Ok::<_, std::convert::Infallible>(http::Response::new("done".to_owned()))
/// });
/// let service = ServerTraceLayer::new(Protocol::Http).layer(handler);
/// let response = service.oneshot(http::Request::new(())).await?;
/// assert!(response.headers().contains_key("x-trace-id"));
/// # Ok::<_, std::convert::Infallible>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ServerTraceLayer {
    protocol: Protocol,
    proxies: TrustedProxies,
}

impl ServerTraceLayer {
    /// Creates a layer for `protocol` without trusted proxies.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, proxies: TrustedProxies::default() }
    }

    /// Trusts `x-forwarded-for` of these proxies for `client.address`.
    #[must_use]
    pub fn with_trusted_proxies(self, proxies: TrustedProxies) -> Self {
        Self { proxies, ..self }
    }
}

impl<S> Layer<S> for ServerTraceLayer {
    type Service = ServerTrace<S>;

    fn layer(&self, inner: S) -> ServerTrace<S> {
        ServerTrace { inner, layer: self.clone() }
    }
}

/// Service of [`ServerTraceLayer`].
#[derive(Debug, Clone)]
pub struct ServerTrace<S> {
    inner: S,
    layer: ServerTraceLayer,
}

impl<S, B, R> Service<Request<B>> for ServerTrace<S>
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
        let ServerTraceLayer { protocol, proxies } = &self.layer;
        let log = (*protocol == Protocol::Http).then(|| RequestLog::begin(&mut request)).flatten();
        let scope = RequestScope::for_request(*protocol, proxies, &request);
        let stream = Context::of(&request).is_some_and(Context::is_stream);
        let inner = scope.run(|| self.inner.call(request));
        let outcome = ResponseOutcome::pending(Role::Server(*protocol)).of_stream(stream);
        ResponseFuture { inner, finisher: Some(SpanFinisher { scope, log, protocol: *protocol, outcome, finished: false }) }
    }
}

/// Trace scope of a request.
#[derive(Debug)]
enum RequestScope {
    /// Recorded or disabled span.
    Span(Span),
    /// Trace ids without a span.
    Ids(opentelemetry::Context),
}

impl RequestScope {
    fn for_request<B>(protocol: Protocol, proxies: &TrustedProxies, request: &Request<B>) -> Self {
        let method = Context::of(request).and_then(|context| context.method);
        if method.is_some_and(|method| method.infrastructure) {
            return Self::Span(Span::none());
        }
        // The request of every log record is found in the context.
        let with_request = |context: opentelemetry::Context| match CurrentRequest::of(request) {
            Some(current) => context.with_value(current),
            None => context,
        };
        match sampling::decide(protocol, extract(request.headers())) {
            Decision::NotRecorded(ids) => Self::Ids(with_request(ids)),
            Decision::Traced(parent) => {
                let parent = with_request(parent);
                let span = new_span::start_span(protocol, proxies, request);
                // Must precede the first enter, which would fix the parent. Fails only without an
                // OpenTelemetry subscriber.
                let _ = span.set_parent(parent);
                Self::Span(span)
            }
        }
    }

    fn enter(&self) -> ScopeGuard<'_> {
        match self {
            Self::Span(span) => ScopeGuard::Span { _entered: span.enter() },
            Self::Ids(ids) => ScopeGuard::Ids { _attached: ids.clone().attach() },
        }
    }

    fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        let _guard = self.enter();
        f()
    }

    fn record(&self, field: &'static str, value: impl tracing::Value) {
        if let Self::Span(span) = self {
            span.record(field, value);
        }
    }
}

/// Guard: the request is current until dropped.
pub enum ScopeGuard<'a> {
    /// Entered span.
    Span {
        /// Exits the span on drop.
        _entered: Entered<'a>,
    },
    /// Attached trace ids.
    Ids {
        /// Detaches the ids on drop.
        _attached: ContextGuard,
    },
}

/// Random id for untraced requests (health probes), whose responses have a trace id header too.
fn untraced_id() -> TraceId {
    RandomIdGenerator::default().new_trace_id()
}

/// Ends the span with the outcome of the complete response.
#[derive(Debug)]
pub struct SpanFinisher {
    scope: RequestScope,
    /// Record of the request, over HTTP.
    log: Option<RequestLog>,
    protocol: Protocol,
    outcome: ResponseOutcome,
    finished: bool,
}

impl SpanFinisher {
    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        match self.protocol {
            Protocol::Http => {
                let status = self.outcome.http_status();
                if let Some(log) = &self.log {
                    self.scope.run(|| log.finish(status));
                }
                self.scope.record("http.response.status_code", i64::from(status));
                if self.outcome.is_caller_timeout() {
                    // No fault of ours: the caller did not wait.
                    self.scope.record("error.type", CALLER_DEADLINE);
                } else if status >= 500 {
                    self.scope.record("otel.status_code", "ERROR");
                    self.scope.record("error.type", status.to_string());
                }
            }
            Protocol::Grpc => {
                let code = self.outcome.grpc_code();
                self.scope.record("rpc.status_code", grpc_status::name(code));
                if self.outcome.is_ended_by_reader() {
                    return;
                }
                if self.outcome.is_caller_timeout() {
                    self.scope.record("error.type", CALLER_DEADLINE);
                } else if code != Code::Ok {
                    self.scope.record("error.type", grpc_status::name(code));
                }
                if grpc_status::is_server_fault(code) && !self.outcome.is_caller_timeout() {
                    self.scope.record("otel.status_code", "ERROR");
                }
            }
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
    /// Future of [`ServerTrace`].
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
        let guard = finisher.scope.enter();
        let mut response = ready!(this.inner.poll(cx))?;
        let trace_id = (finisher.protocol == Protocol::Http).then(|| current_trace_id().unwrap_or_else(untraced_id));
        drop(guard);
        let Some(mut finisher) = this.finisher.take() else { unreachable!("checked above") };
        finisher.outcome.record_head(&response);
        if let Some(log) = &mut finisher.log {
            log.record_head(&response);
        }
        if let Some(value) = trace_id.and_then(|id| HeaderValue::from_bytes(&trace_context::hex::<16, 32>(id.to_bytes())).ok()) {
            response.headers_mut().insert(TRACE_ID_HEADER, value);
        }
        Poll::Ready(Ok(InstrumentedBody::observe(response, finisher)))
    }
}

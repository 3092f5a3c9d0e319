//! SERVER span of a request, from the request head to the last byte of the response or the
//! cancellation.

mod new_span;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use http::{HeaderValue, Request, Response};
use http_body::Body;
use opentelemetry::{TraceId, trace::TraceContextExt};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::Code;
use tower::{Layer, Service};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use self::new_span::Head;
use super::{
    Scope, ScopeGuard, TRACE_ID_HEADER,
    propagation::{current_trace_id, extract},
    sampling::{self, Decision, InternalCallers, TrustBoundary},
    tail_sampling::{KEPT_TRACES_HEADER, PARTIAL_FAILURE, SLOW, SLOW_REASON, Verdict},
    trace_context,
};
use crate::{
    body::{BodyObserver, End, InstrumentedBody},
    context::{Context, Facts},
    grpc_status,
    protocol::Protocol,
    request_log::{CurrentRequest, Refusal, RequestLog},
    response_outcome::{CLIENT_CLOSED_REQUEST, ResponseOutcome, Role},
    time_limit::CALLER_DEADLINE,
    trusted_proxies::TrustedProxies,
};

/// Starts the SERVER span, continues the caller's trace, and adds `x-trace-id` to HTTP responses.
///
/// ```
/// use palisade_resilience::{protocol::Protocol, trace::ServerTraceLayer};
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
    callers: Option<Arc<dyn InternalCallers>>,
}

impl ServerTraceLayer {
    /// Creates a layer for `protocol` without trusted proxies. All gRPC callers are internal
    /// services.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, proxies: TrustedProxies::default(), callers: None }
    }

    /// Follows the sampling decision of a gRPC caller only if it is one of `callers`.
    #[must_use]
    pub fn with_internal_callers(self, callers: Arc<dyn InternalCallers>) -> Self {
        Self { callers: Some(callers), ..self }
    }

    /// Returns the trust boundary of a gRPC request. That of HTTP requests is the policy's.
    fn boundary<B>(&self, request: &Request<B>) -> Option<TrustBoundary> {
        let is_internal = || self.callers.as_ref().is_none_or(|callers| callers.is_internal(request.headers()));
        (self.protocol == Protocol::Grpc).then(|| if is_internal() { TrustBoundary::Internal } else { TrustBoundary::Public })
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
        let protocol = &self.layer.protocol;
        let log = (*protocol == Protocol::Http).then(|| RequestLog::begin(&mut request)).flatten();
        let (scope, decides_about_local) = scope_for_request(&self.layer, &request);
        let stream = Context::of(&request).is_some_and(Context::is_stream);
        let facts = match &log {
            Some(log) => Some(log.facts.clone()),
            None if scope.is_observed() => {
                request.extensions_mut().get_mut::<Context>().map(|context| context.facts.insert(Arc::default()).clone())
            }
            None => None,
        };
        let inner = scope.run(|| self.inner.call(request));
        let outcome = ResponseOutcome::pending(Role::Server(*protocol)).of_stream(stream);
        ResponseFuture {
            inner,
            finisher: Some(SpanFinisher {
                scope,
                log,
                protocol: *protocol,
                outcome,
                facts,
                refusal: None,
                started: Instant::now(),
                decides_about_local,
                finished: false,
            }),
        }
    }
}

/// Starts the span of a request. Returns also whether its outcome decides about a local trace.
fn scope_for_request<B>(layer: &ServerTraceLayer, request: &Request<B>) -> (Scope, bool) {
    let ServerTraceLayer { protocol, proxies, .. } = layer;
    let method = Context::method_of(request);
    if method.is_some_and(|method| method.infrastructure) {
        receive_verdicts(*protocol, request);
        return (Scope::none(), false);
    }
    // The request of every log record is found in the context.
    let with_request = |context: opentelemetry::Context| match CurrentRequest::of(request) {
        Some(current) => context.with_value(current),
        None => context,
    };
    match sampling::decide(layer.boundary(request), extract(request.headers())) {
        Decision::NotRecorded(ids) => (Scope::of_ids(with_request(ids)), false),
        Decision::Held(trace, id, parent) => {
            let head = Head::of(*protocol, proxies, request);
            (Scope::of_held_request(trace, id, &with_request(parent), Box::new(move || head.start_span())), false)
        }
        Decision::Traced(parent) => {
            let decides_about_local = sampling::decides_about_local(&parent);
            let parent = with_request(parent);
            let span = Head::of(*protocol, proxies, request).start_span();
            // Must precede the first enter, which would fix the parent. Fails only without an
            // OpenTelemetry subscriber.
            let _ = span.set_parent(parent);
            (Scope::of_span(span), decides_about_local)
        }
    }
}

/// Exports the held traces that a calling service names. Callers of an HTTP port are external.
fn receive_verdicts<B>(protocol: Protocol, request: &Request<B>) {
    let header = request.headers().get(KEPT_TRACES_HEADER).filter(|_| protocol == Protocol::Grpc);
    if let (Some(text), Some(tail)) = (header.and_then(|header| header.to_str().ok()), sampling::tail()) {
        Verdict::read(text).for_each(|verdict| tail.keep(verdict));
    }
}

/// Random id for untraced requests (health probes), whose responses have a trace id header too.
fn untraced_id() -> TraceId {
    RandomIdGenerator::default().new_trace_id()
}

/// Ends the span with the outcome of the complete response.
#[derive(Debug)]
pub struct SpanFinisher {
    scope: Scope,
    /// Record of the request, over HTTP.
    log: Option<RequestLog>,
    protocol: Protocol,
    outcome: ResponseOutcome,
    facts: Option<Arc<Facts>>,
    /// Refusal behind the response.
    refusal: Option<Refusal>,
    started: Instant,
    /// Whether the outcome decides about the export of a local trace.
    decides_about_local: bool,
    finished: bool,
}

impl SpanFinisher {
    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.record_outcome();
        if let Some(trace) = self.scope.own_held_trace() {
            if let Some(reason) = self.reason_to_keep(trace.has_failed()) {
                trace.keep_for(reason);
            }
        } else if self.decides_about_local
            && let Some(reason) = self.reason_to_keep(false)
        {
            sampling::keep_local(self.scope.context().span().span_context().trace_id(), reason);
        }
    }

    /// Returns why the trace is worth to be exported, if it is.
    fn reason_to_keep(&self, has_failed_part: bool) -> Option<&'static str> {
        let is_slow = !self.outcome.is_stream() && self.started.elapsed() >= SLOW;
        let refusal = match self.protocol {
            Protocol::Http => match self.outcome.http_status() {
                // Accepted, and not done in time.
                202 => Some("accepted"),
                CLIENT_CLOSED_REQUEST | ..400 => None,
                _ => Some(self.refusal.as_ref().map_or("truncated", Refusal::code)),
            },
            Protocol::Grpc => {
                let code = self.outcome.grpc_code();
                (code != Code::Ok && code != Code::Cancelled && !self.outcome.is_ended_by_reader()).then(|| grpc_status::name(code))
            }
        };
        refusal.or(is_slow.then_some(SLOW_REASON)).or(has_failed_part.then_some(PARTIAL_FAILURE))
    }

    fn record_outcome(&self) {
        if let Some(refusal) = &self.refusal {
            self.scope.record("app.problem.code", refusal.code());
            self.scope.record("app.refused_by", refusal.refused_by(self.facts.as_deref()));
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
        finisher.refusal = response.extensions().get().cloned();
        if let Some(log) = &mut finisher.log {
            log.record_head(&response);
        }
        if let Some(value) = trace_id.and_then(|id| HeaderValue::from_bytes(&trace_context::hex::<16, 32>(id.to_bytes())).ok()) {
            response.headers_mut().insert(TRACE_ID_HEADER, value);
        }
        Poll::Ready(Ok(InstrumentedBody::observe(response, finisher)))
    }
}

//! The CLIENT span of one logical call, retries included; its context goes out with every attempt.

mod open;

use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tonic::Code;
use tower::{Layer, Service};
use tracing::{Span, span::Entered};

use super::inject;
use crate::{
    body::{End, BodyObserver, InstrumentedBody},
    response_outcome::{ResponseOutcome, Role},
    grpc_status,
    respond::Protocol,
};

/// Opens the CLIENT span and writes `traceparent`.
///
/// ```
/// use palisade_middleware::{respond::Protocol, trace::ClientTraceLayer};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let call = service_fn(async |_| Ok::<_, std::convert::Infallible>(http::Response::new(String::new())));
/// let layer = ClientTraceLayer { protocol: Protocol::Grpc, server_address: "products.internal".into(), server_port: Some(5000) };
/// layer.layer(call).oneshot(http::Request::new(())).await?;
/// # Ok::<_, std::convert::Infallible>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ClientTraceLayer {
    /// What is spoken. URIs of HTTP requests are whole: `url.full` is made of them.
    pub protocol: Protocol,
    /// `server.address`: the host as configured, or the name of the target if it has several.
    pub server_address: std::sync::Arc<str>,
    /// `server.port`; none if there are several.
    pub server_port: Option<u16>,
}

impl<S> Layer<S> for ClientTraceLayer {
    type Service = ClientTrace<S>;

    fn layer(&self, inner: S) -> ClientTrace<S> {
        ClientTrace { inner, target: self.clone() }
    }
}

/// See [`ClientTraceLayer`].
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
        let span = open::start_span(&self.target, &request);
        inject(&span, request.headers_mut());
        let inner = span.in_scope(|| self.inner.call(request));
        let conclusion = ResponseOutcome::pending(Role::Client(protocol));
        ResponseFuture { inner, finisher: Some(SpanFinisher { span, protocol, outcome: conclusion, finished: false }) }
    }
}

/// Ends the span with the status of the whole answer.
#[derive(Debug)]
pub struct SpanFinisher {
    span: Span,
    protocol: Protocol,
    outcome: ResponseOutcome,
    finished: bool,
}

impl SpanFinisher {
    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let error = match self.protocol {
            Protocol::Grpc => {
                let code = self.outcome.grpc_code();
                self.span.record("rpc.status_code", grpc_status::name(code));
                if code == Code::Ok { "".into() } else { grpc_status::name(code).into() }
            }
            Protocol::Http => {
                let outcome = self.outcome.http_outcome();
                if let Some(status) = outcome.status {
                    self.span.record("http.response.status_code", i64::from(status));
                }
                outcome.error_type()
            }
        };
        if !error.is_empty() {
            self.span.record("error.type", &*error);
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

impl BodyObserver for SpanFinisher {
    type Entered<'a> = Entered<'a>;

    fn enter(&mut self) -> Entered<'_> {
        self.span.enter()
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
    /// The future of [`ClientTrace`].
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
        let Some(finisher) = this.finisher.as_ref() else { unreachable!("polled after it was ready") };
        let response = ready!(finisher.span.in_scope(|| this.inner.poll(cx)))?;
        let Some(mut finisher) = this.finisher.take() else { unreachable!("it is there, see above") };
        finisher.outcome.record_head(&response);
        Poll::Ready(Ok(response.map(|body| InstrumentedBody::new(body, finisher))))
    }
}

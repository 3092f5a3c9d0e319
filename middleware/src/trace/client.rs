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
    body::{End, Observe, Observed},
    conclusion::{Conclusion, Side},
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
    type Response = Response<Observed<R, Ending>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let protocol = self.target.protocol;
        let span = open::open(&self.target, &request);
        inject(&span, request.headers_mut());
        let inner = span.in_scope(|| self.inner.call(request));
        let conclusion = Conclusion::open(Side::Client(protocol));
        ResponseFuture { inner, ending: Some(Ending { span, protocol, conclusion, ended: false }) }
    }
}

/// Ends the span with the status of the whole answer.
#[derive(Debug)]
pub struct Ending {
    span: Span,
    protocol: Protocol,
    conclusion: Conclusion,
    ended: bool,
}

impl Ending {
    fn finish(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let error = match self.protocol {
            Protocol::Grpc => {
                let code = self.conclusion.code();
                self.span.record("rpc.status_code", grpc_status::name(code));
                if code == Code::Ok { "".into() } else { grpc_status::name(code).into() }
            }
            Protocol::Http => {
                let outcome = self.conclusion.http_outcome();
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

impl Observe for Ending {
    type Entered<'a> = Entered<'a>;

    fn enter(&mut self) -> Entered<'_> {
        self.span.enter()
    }

    fn end(&mut self, end: End<'_>) {
        self.conclusion.end(end);
        self.finish();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.finish();
    }
}

pin_project! {
    /// The future of [`ClientTrace`].
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        ending: Option<Ending>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<Observed<R, Ending>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(ending) = this.ending.as_ref() else { unreachable!("polled after it was ready") };
        let response = ready!(ending.span.in_scope(|| this.inner.poll(cx)))?;
        let Some(mut ending) = this.ending.take() else { unreachable!("it is there, see above") };
        ending.conclusion.head(&response);
        Poll::Ready(Ok(response.map(|body| Observed::new(body, ending))))
    }
}

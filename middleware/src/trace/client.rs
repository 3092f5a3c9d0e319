//! The CLIENT span of one logical gRPC call, retries included; its context goes out with every attempt.

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
use tracing::{Span, field::Empty, span::Entered};

use super::inject;
use crate::{
    body::{End, Observe, Observed},
    conclusion::{Conclusion, Side},
    grpc_status,
};

/// Opens the CLIENT span and writes `traceparent`.
///
/// ```
/// use palisade_middleware::trace::ClientTraceLayer;
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let call = service_fn(async |_| Ok::<_, std::convert::Infallible>(http::Response::new(String::new())));
/// let layer = ClientTraceLayer { server_address: "products.internal".into(), server_port: Some(5000) };
/// layer.layer(call).oneshot(http::Request::new(())).await?;
/// # Ok::<_, std::convert::Infallible>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ClientTraceLayer {
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
        let span = {
            let method = request.uri().path().trim_start_matches('/');
            crate::recorded_span!(
                "rpc.client",
                otel.name = method,
                otel.kind = "client",
                otel.status_code = Empty,
                rpc.system.name = "grpc",
                rpc.method = method,
                rpc.status_code = Empty,
                error.type = Empty,
                server.address = &*self.target.server_address,
                server.port = self.target.server_port.map(i64::from),
                app.rpc.attempts = Empty,
            )
        };
        inject(&span, request.headers_mut());
        let inner = span.in_scope(|| self.inner.call(request));
        ResponseFuture { inner, ending: Some(Ending { span, conclusion: Conclusion::open(Side::Client), ended: false }) }
    }
}

/// Ends the span with the status of the whole answer.
#[derive(Debug)]
pub struct Ending {
    span: Span,
    conclusion: Conclusion,
    ended: bool,
}

impl Ending {
    fn finish(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let code = self.conclusion.code();
        self.span.record("rpc.status_code", grpc_status::name(code));
        if code != Code::Ok {
            self.span.record("error.type", grpc_status::name(code));
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

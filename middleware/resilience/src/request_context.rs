//! Creation of the request [`Context`]: outermost layer, cheap, never rejects.

mod priority;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    context::{self, Context, RequestId},
    method_table::MethodTable,
};

pub use priority::apply_inbound_priority;

/// Request id header of requests and responses.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Number of previous attempts of the call (gRFC A6).
pub const PREVIOUS_ATTEMPTS_HEADER: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Adds a [`Context`] to the extensions of each request, and the request id to the response.
///
/// ```
/// use palisade_resilience::{
///     context::Context, method_table::MethodTable, request_context::RequestContextLayer,
/// };
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |request: http::Request<()>| {
///     let context = Context::of(&request).expect("added by the layer");
///     Ok::<_, std::convert::Infallible>(http::Response::new(context.request_id.to_string()))
/// });
/// let layer = RequestContextLayer(std::sync::Arc::new(MethodTable::new(&[])?));
/// let response = layer.layer(handler).oneshot(http::Request::new(())).await?;
/// assert_eq!(response.headers()["x-request-id"], &**response.body());
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct RequestContextLayer(pub Arc<MethodTable>);

impl<S> Layer<S> for RequestContextLayer {
    type Service = RequestContext<S>;

    fn layer(&self, inner: S) -> RequestContext<S> {
        RequestContext { inner, methods: self.0.clone() }
    }
}

/// Service of [`RequestContextLayer`].
#[derive(Debug, Clone)]
pub struct RequestContext<S> {
    inner: S,
    methods: Arc<MethodTable>,
}

impl<S, B, R> Service<Request<B>> for RequestContext<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = self.methods.find(request.method(), request.uri().path());
        let context = Context {
            request_id: request.headers().get(REQUEST_ID_HEADER).and_then(RequestId::from_header).unwrap_or_else(RequestId::random),
            deadline: None,
            client_address: None,
            principal: None,
            method,
            priority: method.map(|method| method.priority).unwrap_or_default(),
            previous_attempts: previous_attempts(request.headers()),
            #[cfg(feature = "opentelemetry")]
            facts: None,
        };
        let request_id = Some(context.request_id.header());
        if context.method.is_none()
            && let Some(allowed) = self.methods.allowed(request.uri().path())
        {
            request.extensions_mut().insert(allowed);
        }
        request.extensions_mut().insert(context);
        ResponseFuture { inner: self.inner.call(request), request_id }
    }
}

fn previous_attempts(headers: &HeaderMap) -> u32 {
    headers.get(PREVIOUS_ATTEMPTS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

pin_project! {
    /// Future of [`RequestContext`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        request_id: Option<HeaderValue>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(id) = this.request_id.take() {
            response.headers_mut().insert(REQUEST_ID_HEADER, id);
        }
        Poll::Ready(Ok(response))
    }
}

/// Makes the request's [`Context`] the current one ([`context::current`]) for the handler.
/// Innermost layer, after all layers have updated the context.
///
/// ```
/// use palisade_resilience::{context::{self, Context}, request_context::CurrentContextLayer};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| {
///     let context = context::current().expect("set by the layer");
///     Ok::<_, std::convert::Infallible>(context.request_id)
/// });
/// let context = Context::background();
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(context.clone());
/// let request_id = CurrentContextLayer.layer(handler).oneshot(request).await?;
/// assert_eq!(request_id, context.request_id);
/// # Ok::<_, std::convert::Infallible>(()) }).unwrap();
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CurrentContextLayer;

impl<S> Layer<S> for CurrentContextLayer {
    type Service = CurrentContext<S>;

    fn layer(&self, inner: S) -> CurrentContext<S> {
        CurrentContext { inner }
    }
}

/// Service of [`CurrentContextLayer`].
#[derive(Debug, Clone)]
pub struct CurrentContext<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for CurrentContext<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = tokio::task::futures::TaskLocalFuture<Context, S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = Context::of(&request).cloned().unwrap_or_else(Context::background);
        context::enter(context, self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        method_table::{Access, Method},
        priority::{PRIORITY_HEADER, Priority},
    };

    type Body = Empty<bytes::Bytes>;

    #[tokio::test]
    async fn request_priority_comes_from_method_table() {
        static METHODS: [Method; 1] = [Method::http("GET", "/report", Access::Public).priority(Priority::Batch)];
        let table = Arc::new(MethodTable::new(&[&METHODS]).unwrap());
        let inner = tower::service_fn(async |request: Request<Body>| {
            Ok::<_, std::convert::Infallible>(Response::new(Context::of(&request).unwrap().priority))
        });
        for (path, priority) in [("/report", Priority::Batch), ("/other", Priority::Default)] {
            // The header is ignored at this layer, before authentication.
            let request = Request::get(path).header(PRIORITY_HEADER, "critical").body(Body::new()).unwrap();
            let response = RequestContextLayer(table.clone()).layer(inner).oneshot(request).await.unwrap();
            assert_eq!(*response.body(), priority, "{path}");
        }
    }

    #[tokio::test]
    async fn invalid_request_id_is_replaced() {
        let table = Arc::new(MethodTable::new(&[]).unwrap());
        let inner = tower::service_fn(|_: Request<Body>| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
        let service = RequestContextLayer(table).layer(inner);
        let long = "x".repeat(65);
        for (given, accepted) in [("abc-1", true), ("", false), ("a b", false), ("é", false), (long.as_str(), false)] {
            let request = Request::get("/").header(REQUEST_ID_HEADER, HeaderValue::from_bytes(given.as_bytes()).unwrap());
            let response = service.clone().oneshot(request.body(Body::new()).unwrap()).await.unwrap();
            assert_eq!(response.headers()[REQUEST_ID_HEADER] == given, accepted, "{given:?}");
        }
    }
}

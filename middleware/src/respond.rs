//! Turns refusals into answers: `application/problem+json` (RFC 9457) over HTTP, trailers-only statuses over gRPC.

mod problem;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    context::{Context, RequestId},
    rejection::{self, Rejection, reasons},
};

pub use problem::PROBLEM_JSON;

/// The refusal that an answer stands for: of an HTTP handler, to be written by [`Respond`]; of our own client, to go on with its cause.
#[derive(Clone)]
pub(crate) struct RejectionExtension(pub(crate) Arc<Rejection>);

impl IntoResponse for Rejection {
    /// A response that [`Respond`] turns into a problem; it knows the request, a handler's error does not.
    fn into_response(self) -> axum::response::Response {
        let mut response = self.reason().http.into_response();
        response.extensions_mut().insert(RejectionExtension(Arc::new(self)));
        response
    }
}

/// The protocol that answers are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// JSON over HTTP; refusals are problems.
    Http,
    /// gRPC; refusals are statuses in trailers.
    Grpc,
}

/// Makes a stack infallible: whatever was refused inside becomes an answer.
///
/// Sits just inside trace and metrics, which must see the refusals, and outside everything that can refuse.
///
/// ```
/// use palisade_middleware::{rejection::{Rejection, reasons}, respond::{Protocol, RespondLayer}};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| Err::<http::Response<String>, _>(Rejection::new(&reasons::NOT_FOUND, "no such thing")));
/// let http = RespondLayer(Protocol::Http).layer(handler.clone()).oneshot(http::Request::new(())).await?;
/// assert_eq!((http.status(), &http.headers()["content-type"]), (http::StatusCode::NOT_FOUND, &"application/problem+json".parse().unwrap()));
/// let grpc = RespondLayer(Protocol::Grpc).layer(handler).oneshot(http::Request::new(())).await?;
/// assert_eq!((grpc.status(), &grpc.headers()["grpc-status"]), (http::StatusCode::OK, &5.into()));
/// # Ok::<_, std::convert::Infallible>(()) }).unwrap();
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RespondLayer(pub Protocol);

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond { inner, audience: Audience::External(self.0) }
    }
}

/// The same for the calls that we make: what is refused becomes an answer of their protocol, with the refusal in its extensions. It is not
/// logged, because the request is not answered with it yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientRespondLayer(pub(crate) Protocol);

impl<S> Layer<S> for ClientRespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond { inner, audience: Audience::Internal(self.0) }
    }
}

/// Who is told of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// A caller, and the log.
    External(Protocol),
    /// This process itself, which has called somebody.
    Internal(Protocol),
}

/// See [`RespondLayer`].
#[derive(Debug, Clone)]
pub struct Respond<S> {
    inner: S,
    audience: Audience,
}

impl<S, B, R> Service<Request<B>> for Respond<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<Rejection>,
{
    type Response = Response<Either<R, Full<Bytes>>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        // Nothing below refuses in `poll_ready`; were one to, the call that follows would say why.
        match ready!(self.inner.poll_ready(cx)) {
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request_info = (self.audience == Audience::External(Protocol::Http)).then(|| RequestInfo {
            request_id: Context::of(&request).map(|context| context.request_id.clone()),
            path: request.uri().path().into(),
            is_head: request.method() == Method::HEAD,
        });
        ResponseFuture { inner: self.inner.call(request), request_info, audience: self.audience }
    }
}

/// What a problem says of the request.
#[derive(Debug)]
struct RequestInfo {
    request_id: Option<RequestId>,
    path: Box<str>,
    /// The answer to HEAD has no body.
    is_head: bool,
}

pin_project! {
    /// The future of [`Respond`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        // `Some` for those who call by HTTP.
        request_info: Option<RequestInfo>,
        audience: Audience,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<Rejection>,
{
    type Output = Result<Response<Either<R, Full<Bytes>>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let Some(request_info) = this.request_info else {
            return Poll::Ready(Ok(match result {
                Ok(response) => {
                    if let (Audience::External(_), Some(status)) = (*this.audience, response.extensions().get()) {
                        rejection::log_status(status);
                    }
                    response.map(Either::Left)
                }
                Err(error) => rejection_response(error.into(), *this.audience),
            }));
        };
        Poll::Ready(Ok(match result {
            Err(error) => problem::write(&error.into(), request_info, None),
            Ok(response) if response.status().as_u16() >= 400 => {
                let rejection = response.extensions().get::<RejectionExtension>().cloned();
                let rejection = rejection.unwrap_or_else(|| RejectionExtension(Arc::new(rejection_from_status(response.status()))));
                problem::write(&rejection.0, request_info, Some(response.headers()))
            }
            Ok(mut response) => {
                response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                response.map(Either::Left)
            }
        }))
    }
}

fn rejection_response<R>(rejection: Rejection, audience: Audience) -> Response<Either<R, Full<Bytes>>> {
    let mut response = match audience {
        Audience::Internal(Protocol::Http) => Response::new(Full::default()),
        Audience::Internal(Protocol::Grpc) | Audience::External(_) => rejection.to_status().into_http(),
    };
    if let Audience::Internal(protocol) = audience {
        if protocol == Protocol::Http {
            *response.status_mut() = rejection.reason().http;
        }
        response.extensions_mut().insert(RejectionExtension(Arc::new(rejection)));
    } else {
        rejection.log();
    }
    response.map(Either::Right)
}

/// An error status that a framework wrote by itself.
fn rejection_from_status(status: StatusCode) -> Rejection {
    let reason = match status {
        StatusCode::NOT_FOUND => &reasons::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED => &reasons::METHOD_NOT_ALLOWED,
        StatusCode::PAYLOAD_TOO_LARGE => &reasons::BODY_TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => &reasons::UNSUPPORTED_MEDIA_TYPE,
        status if status.is_client_error() => &reasons::INVALID_PARAMETER,
        _ => &reasons::INTERNAL,
    };
    Rejection::new(reason, reason.title)
}

#[cfg(test)]
mod tests;

//! Error responses: encodes rejections as `application/problem+json` (RFC 9457) over HTTP and as
//! trailers-only statuses over gRPC.

mod problem;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{Either, Full};
use pin_project_lite::pin_project;
use tonic::Status;
use tower::{Layer, Service};

#[cfg(feature = "opentelemetry")]
use crate::request_log::Refusal;
use crate::{
    context::{Context, RequestId},
    rejection::{self, Rejection},
    time_limit::{LimitOrigin, NoEvidence},
};

pub use crate::{protocol::Protocol, rejection::RejectionExtension};
pub use problem::PROBLEM_JSON;
pub(crate) use problem::problem_json;

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for Rejection {
    /// Builds a response that [`Respond`] replaces by a problem document, because a handler error
    /// does not know the request.
    fn into_response(self) -> axum::response::Response {
        let mut response = self.reason().http.into_response();
        response.extensions_mut().insert(RejectionExtension(Arc::new(self)));
        response
    }
}

/// Makes a stack infallible: converts rejections into responses.
///
/// Placed directly inside trace and metrics, which must observe rejections, and outside all layers
/// that reject. Only rejections are encoded: an error response that the handler wrote itself passes
/// as it is.
///
/// ```
/// use palisade_resilience::{rejection::{Rejection, reasons}, respond::{Protocol, RespondLayer}};
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| {
///     Err::<http::Response<String>, _>(Rejection::new(&reasons::NOT_FOUND, "no such thing"))
/// });
/// let http = RespondLayer(Protocol::Http).layer(handler.clone());
/// let http = http.oneshot(http::Request::new(())).await?;
/// assert_eq!(http.status(), http::StatusCode::NOT_FOUND);
/// assert_eq!(http.headers()["content-type"], "application/problem+json");
/// let grpc = RespondLayer(Protocol::Grpc).layer(handler);
/// let grpc = grpc.oneshot(http::Request::new(())).await?;
/// assert_eq!(grpc.status(), http::StatusCode::OK);
/// assert_eq!(grpc.headers()["grpc-status"], "5");
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

/// As [`RespondLayer`] for outbound calls: the response carries the rejection in its extensions.
/// Not logged here, because the rejection may still be retried or mapped.
#[derive(Debug, Clone, Copy)]
pub struct ClientRespondLayer(pub Protocol);

impl<S> Layer<S> for ClientRespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond { inner, audience: Audience::Internal(self.0) }
    }
}

/// Recipient of a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// A remote caller; the rejection is logged.
    External(Protocol),
    /// The calling code of this process.
    Internal(Protocol),
}

/// Service of [`RespondLayer`].
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
        // No inner layer fails in `poll_ready`. If one did, the subsequent call would return the
        // reason.
        match ready!(self.inner.poll_ready(cx)) {
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request_info = (self.audience == Audience::External(Protocol::Http)).then(|| RequestInfo {
            request_id: Context::of(&request).map(|context| context.request_id.clone()),
            path: request.uri().path().into(),
            is_head: request.method() == Method::HEAD,
            has_record: has_record(&request),
        });
        ResponseFuture { inner: self.inner.call(request), request_info, audience: self.audience }
    }
}

/// Properties of the request that a problem document shows.
#[derive(Debug)]
struct RequestInfo {
    request_id: Option<RequestId>,
    path: Box<str>,
    /// Responses to HEAD have no body.
    is_head: bool,
    /// Whether the request log writes a record, so that the rejection needs none.
    has_record: bool,
}

/// Returns whether the request log writes the failure of this request.
#[cfg(feature = "opentelemetry")]
fn has_record<B>(request: &Request<B>) -> bool {
    Context::of(request).is_some_and(|context| context.facts.is_some())
}

#[cfg(not(feature = "opentelemetry"))]
fn has_record<B>(_: &Request<B>) -> bool {
    false
}

pin_project! {
    /// Future of [`Respond`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        // `Some` for HTTP callers.
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
                Ok(mut response) => {
                    if let (Audience::External(_), Some(status)) = (*this.audience, response.extensions().get::<Status>()) {
                        rejection::log_status(status);
                    }
                    note_refusal(&mut response);
                    response.map(Either::Left)
                }
                Err(error) => rejection_response(error.into(), *this.audience),
            }));
        };
        Poll::Ready(Ok(match result {
            Err(error) => {
                let rejection = error.into();
                let mut response = problem::write(&rejection, request_info, None);
                mark_timeout(&mut response, &rejection);
                response
            }
            Ok(response) => answer(response, request_info),
        }))
    }
}

/// Notes the refusal behind a status that the handler returned, for spans.
#[cfg(feature = "opentelemetry")]
fn note_refusal<R>(response: &mut Response<R>) {
    let rejection = response.extensions().get::<Status>().and_then(rejection::source_rejection);
    if let Some(refusal) = rejection.map(Refusal::of) {
        response.extensions_mut().insert(refusal);
    }
}

#[cfg(not(feature = "opentelemetry"))]
fn note_refusal<R>(_: &mut Response<R>) {}

/// Encodes the rejection behind a response. Other responses are the answer of the handler, whatever
/// their status.
fn answer<R>(mut response: Response<R>, request_info: &RequestInfo) -> Response<Either<R, Full<Bytes>>> {
    if let Some(RejectionExtension(rejection)) = response.extensions().get::<RejectionExtension>() {
        let mut written = problem::write(rejection, request_info, Some(response.headers()));
        if let Some(mark) = response.extensions().get::<NoEvidence>() {
            written.extensions_mut().insert(*mark);
        }
        return written;
    }
    if !(response.status().is_client_error() || response.status().is_server_error()) {
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response.map(Either::Left)
}

fn rejection_response<R>(rejection: Rejection, audience: Audience) -> Response<Either<R, Full<Bytes>>> {
    let mut response = match audience {
        Audience::Internal(Protocol::Http) => Response::new(Full::default()),
        Audience::Internal(Protocol::Grpc) | Audience::External(_) => rejection.to_status().into_http(),
    };
    mark_timeout(&mut response, &rejection);
    if let Audience::Internal(protocol) = audience {
        if protocol == Protocol::Http {
            *response.status_mut() = rejection.reason().http;
        }
        response.extensions_mut().insert(RejectionExtension(Arc::new(rejection)));
    } else {
        rejection.log();
        #[cfg(feature = "opentelemetry")]
        response.extensions_mut().insert(Refusal::of(&rejection));
    }
    response.map(Either::Right)
}

/// Leaves the mark of a timeout that the caller chose for metrics and spans.
fn mark_timeout<R>(response: &mut Response<R>, rejection: &Rejection) {
    if rejection.is_due_to_caller() {
        response.extensions_mut().insert(NoEvidence::expired(LimitOrigin::Caller));
    }
}

#[cfg(test)]
mod tests;

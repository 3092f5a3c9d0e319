//! One upstream address behind one HTTP/2 connection, and what its failures mean.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::{
    body::Body,
    transport::{self, Channel},
};
use tower::{Service, ServiceExt, util::Oneshot};

use super::{Config, connector::Connector};
use crate::{
    deadline,
    rejection::{Rejection, reasons},
};

/// The source of a refusal whose cause was the connection: no answer came from the other side.
#[derive(Debug, thiserror::Error)]
#[error("the call failed below gRPC")]
pub struct Failure {
    /// The server has certainly not seen the request, so that even one with side effects may be sent again.
    pub unsent: bool,
    source: transport::Error,
}

#[cfg(test)]
impl Failure {
    /// A failure of which nothing is known but this.
    pub(crate) fn example(unsent: bool) -> Self {
        Self { unsent, source: transport::Endpoint::from_shared("").expect_err("no address") }
    }
}

/// The innermost service of the stack: sends a request over a connection that is made when it is needed.
#[derive(Debug, Clone)]
pub struct Endpoint(Channel);

impl Endpoint {
    pub(super) fn new(url: transport::Endpoint, config: &Config) -> Self {
        let endpoint = url
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(5))
            // A peer that went away silently is found before the next call needs it.
            .keep_alive_while_idle(true);
        let connector = Connector::new(Duration::from_millis(config.connect_timeout_ms));
        Self(endpoint.connect_with_connector_lazy(connector))
    }
}

impl Service<Request<Body>> for Endpoint {
    type Response = Response<Body>;
    type Error = Rejection;
    type Future = ResponseFuture;

    /// Always ready: waiting for a connection is a part of the call, under its deadline.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        ResponseFuture { inner: self.0.clone().oneshot(request) }
    }
}

pin_project! {
    /// The future of [`Endpoint`].
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        inner: Oneshot<Channel, Request<Body>>,
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().inner.poll(cx)).map_err(refusal))
    }
}

fn refusal(error: transport::Error) -> Rejection {
    // tonic keeps a timer for the `grpc-timeout` we wrote; ours runs out first but may be polled second.
    if causes(&error).any(<dyn StdError>::is::<tonic::TimeoutExpired>) {
        return deadline::elapsed(Duration::ZERO);
    }
    let unsent = causes(&error).any(is_unsent);
    Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "a service behind this one cannot be reached")
        .with_source(Failure { unsent, source: error })
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// No connection; a connection that closed before hyper took the request; a stream that the server refused, or that is younger than
/// the last one it promised to serve (RFC 9113, sections 8.7 and 6.8).
fn is_unsent(cause: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        let graceful = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        return graceful || error.reason() == Some(h2::Reason::REFUSED_STREAM);
    }
    cause.is::<tonic::ConnectError>() || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
}

//! One upstream address behind one HTTP/2 connection, more if there are streams, and what its failures mean.

mod stream_connections;

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::{
    body::Body,
    transport::{self, Channel},
};
use tower::{ServiceExt, util::Oneshot};

use self::stream_connections::{StreamConnectionPool, StreamSlot};
use super::{
    address::Address,
    connector::{ConnectError, Connector, ConnectParams},
    connect_backoff::ConnectBackoff,
};
use crate::{
    body::{PermitGuard, InstrumentedBody},
    deadline,
    rejection::{Rejection, reasons},
    streams::is_stream,
};

/// The source of a refusal whose cause was the connection: no answer came from the other side.
#[derive(Debug, thiserror::Error)]
#[error("no answer came")]
pub struct Failure {
    /// The server has certainly not seen the request, so that even one with side effects may be sent again.
    pub never_sent: bool,
    /// No connection was tried, so soon after the last failure: this is that failure told again.
    pub connect_backoff: bool,
    source: Box<dyn StdError + Send + Sync>,
}

impl Failure {
    /// The refusal of the call.
    pub(super) fn into_rejection(self) -> Rejection {
        Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "a service behind this one cannot be reached").with_source(self)
    }

    /// Of a call over HTTP. That a connection was lost before the request was on it is not told by every error: it then counts as lost.
    pub(super) fn from_reqwest(error: reqwest::Error) -> Self {
        // Whatever its address holds is nobody's business.
        let error = error.without_url();
        let unsent = error.is_connect() || causes(&error).any(is_never_sent);
        Self { never_sent: unsent, connect_backoff: false, source: error.into() }
    }

    /// A failure of which nothing is known but this.
    #[cfg(test)]
    pub(crate) fn example(unsent: bool) -> Self {
        Self { never_sent: unsent, connect_backoff: false, source: "an example".into() }
    }
}

/// One address. Sends a request over a connection that is made when it is needed.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    channel: Channel,
    stream_connections: Arc<StreamConnectionPool>,
    backoff: ConnectBackoff,
}

impl Endpoint {
    /// Must be called within a tokio runtime.
    pub(super) fn new(address: &Address, params: ConnectParams) -> Self {
        let endpoint = transport::Endpoint::from(address.uri().clone())
            .origin(address.origin(params.tls.is_some()))
            .http2_keep_alive_interval(Duration::from_millis(params.connection.keep_alive_ms))
            .keep_alive_timeout(Duration::from_millis(params.connection.keep_alive_timeout_ms))
            // A peer that went away silently is found before the next call needs it.
            .keep_alive_while_idle(true);
        let connector = Connector::new(params);
        let backoff = connector.backoff();
        let channel = endpoint.connect_with_connector_lazy(connector.clone());
        let lanes = Arc::new(StreamConnectionPool::new(move || endpoint.connect_with_connector_lazy(connector.clone())));
        Self { channel, stream_connections: lanes, backoff }
    }

    /// Waiting for a connection is a part of the call, under its deadline.
    pub(super) fn send(&self, request: Request<Body>) -> ResponseFuture {
        let (channel, place) = if is_stream(&request) {
            let (channel, place) = self.stream_connections.acquire();
            (channel, Some(place))
        } else {
            (self.channel.clone(), None)
        };
        ResponseFuture { inner: channel.oneshot(request), stream_slot: place }
    }

    /// Whether it failed to connect a moment ago and will not try again yet.
    pub(super) fn is_backing_off(&self, now: Instant) -> bool {
        self.backoff.is_backing_off(now)
    }
}

pin_project! {
    /// The future of [`Endpoint`].
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        inner: Oneshot<Channel, Request<Body>>,
        // Of a stream.
        stream_slot: Option<StreamSlot>,
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx)).map_err(to_rejection)?;
        Poll::Ready(Ok(match this.stream_slot.take() {
            Some(place) => response.map(|body| Body::new(InstrumentedBody::new(body, PermitGuard(Some(place))))),
            None => response,
        }))
    }
}

fn to_rejection(error: transport::Error) -> Rejection {
    // tonic keeps a timer for the `grpc-timeout` we wrote; ours runs out first but may be polled second.
    if causes(&error).any(<dyn StdError>::is::<tonic::TimeoutExpired>) {
        return deadline::elapsed(Duration::ZERO);
    }
    let unsent = causes(&error).any(is_never_sent);
    let not_tried = causes(&error).any(|cause| matches!(cause.downcast_ref(), Some(ConnectError::BackingOff(_))));
    Failure { never_sent: unsent, connect_backoff: not_tried, source: error.into() }.into_rejection()
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// No connection; a connection that closed before hyper took the request; a stream that the server refused, or that is younger than
/// the last one it promised to serve (RFC 9113, sections 8.7 and 6.8).
fn is_never_sent(cause: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        let graceful = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        return graceful || error.reason() == Some(h2::Reason::REFUSED_STREAM);
    }
    cause.is::<tonic::ConnectError>() || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_a_failed_connection_from_one_that_was_not_tried() {
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let endpoint = Endpoint::new(&Address::parse(&format!("http://{dead}")).unwrap(), ConnectParams::plain(Duration::from_secs(1)));
        assert!(!endpoint.is_backing_off(Instant::now()));
        for not_tried in [false, true] {
            let refusal = endpoint.send(Request::new(Body::empty())).await.unwrap_err();
            let failure = StdError::source(&refusal).unwrap().downcast_ref::<Failure>().unwrap();
            assert_eq!((failure.never_sent, failure.connect_backoff), (true, not_tried));
            assert!(endpoint.is_backing_off(Instant::now()));
        }
    }
}

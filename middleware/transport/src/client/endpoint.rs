//! Upstream endpoint: one HTTP/2 connection per address, more for streams, and the classification
//! of transport errors.

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
use tonic::{body::Body, transport::Channel};
use tower::{BoxError, ServiceExt, util::Oneshot};

use self::stream_connections::{StreamConnectionPool, StreamSlot};
use super::{
    address::Address,
    connect_backoff::ConnectBackoff,
    connector::{ConnectError, ConnectParams, Connector},
    trace_verdicts::TraceVerdicts,
};
use palisade_resilience::{
    body::{InstrumentedBody, PermitGuard},
    deadline,
    rejection::{Rejection, TransportError, chain},
    streams::is_stream,
    trace::{self, tail_sampling::SendVerdict},
};

/// Sends requests to one address over a lazy connection.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    channel: Channel,
    stream_connections: Arc<StreamConnectionPool>,
    verdicts: Arc<dyn SendVerdict>,
    backoff: ConnectBackoff,
}

impl Endpoint {
    /// Must be called within a tokio runtime.
    pub(super) fn new(address: &Address, params: ConnectParams) -> Self {
        let endpoint = address
            .endpoint(params.tls.is_some())
            .http2_keep_alive_interval(params.connection.keep_alive())
            .keep_alive_timeout(Duration::from_millis(params.connection.keep_alive_timeout_ms))
            .keep_alive_while_idle(params.connection.keep_alive_without_calls.unwrap_or(false));
        let connector = Connector::new(params);
        let backoff = connector.backoff();
        let channel = endpoint.connect_with_connector_lazy(connector.clone());
        let lanes = Arc::new(StreamConnectionPool::new(move || endpoint.connect_with_connector_lazy(connector.clone())));
        Self { verdicts: TraceVerdicts::over(channel.clone()), channel, stream_connections: lanes, backoff }
    }

    /// Sends a request. The wait for a connection is part of the call and under its deadline.
    pub(super) fn send(&self, request: Request<Body>) -> ResponseFuture {
        trace::note_call(&self.verdicts);
        let (channel, place) = if is_stream(&request) {
            let (channel, place) = self.stream_connections.acquire();
            (channel, Some(place))
        } else {
            (self.channel.clone(), None)
        };
        ResponseFuture { inner: channel.oneshot(request), stream_slot: place }
    }

    /// Returns the end of the connect backoff after a failure, or `None` outside of it.
    pub(super) fn backoff_end(&self, now: Instant) -> Option<Instant> {
        // The first check avoids the lock while connections succeed.
        let backing_off = self.backoff.is_backing_off(now);
        backing_off.then(|| self.backoff.check(now).err()).flatten().map(|left| now + left)
    }

    /// Whether the endpoint is in connect backoff after a failure.
    pub(super) fn is_backing_off(&self, now: Instant) -> bool {
        self.backoff.is_backing_off(now)
    }
}

pin_project! {
    /// Response future of [`Endpoint`].
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        inner: Oneshot<Channel, Request<Body>>,
        // `Some` for a stream.
        stream_slot: Option<StreamSlot>,
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx)).map_err(rejection_of)?;
        Poll::Ready(Ok(match this.stream_slot.take() {
            Some(place) => InstrumentedBody::observe(response, PermitGuard(Some(place))).map(Body::new),
            None => response,
        }))
    }
}

/// Converts the error of a client library to the rejection of its call: a transport error, a
/// timeout of the library, or the rejection that it is.
pub fn rejection_of(error: impl Into<BoxError>) -> Rejection {
    let error = match error.into().downcast::<Rejection>() {
        Ok(rejection) => return *rejection,
        Err(error) => error,
    };
    // tonic sets a timer of its own from the `grpc-timeout` header. The local timeout expires first
    // but may be polled second.
    if chain(&*error).any(<dyn StdError>::is::<tonic::TimeoutExpired>) {
        return deadline::elapsed(Duration::ZERO);
    }
    let unsent = chain(&*error).any(is_never_sent);
    let not_tried = chain(&*error).any(|cause| matches!(cause.downcast_ref(), Some(ConnectError::BackingOff(_))));
    TransportError::new(error, unsent, not_tried).into_rejection()
}

/// Converts a reqwest error. Some errors do not reveal that the connection broke before the request
/// was sent; these count as sent.
pub(super) fn from_reqwest(error: reqwest::Error) -> TransportError {
    // The URL may contain credentials.
    let error = error.without_url();
    let never_sent = error.is_connect() || chain(&error).any(is_never_sent);
    TransportError::new(error, never_sent, false)
}

/// The request was never sent: no connection; a connection closed before hyper took the request; a
/// stream refused by the server, or above the last stream ID of its GOAWAY (RFC 9113, sections 8.7
/// and 6.8).
fn is_never_sent(cause: &(dyn StdError + 'static)) -> bool {
    if palisade_resilience::planted!("unsent request taken for a sent one") {
        return false;
    }
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
    async fn connect_failure_differs_from_connect_backoff() {
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let endpoint = Endpoint::new(&Address::parse(&format!("http://{dead}")).unwrap(), ConnectParams::plain(Duration::from_secs(1)));
        assert!(!endpoint.is_backing_off(Instant::now()));
        for not_tried in [false, true] {
            let refusal = endpoint.send(Request::new(Body::empty())).await.unwrap_err();
            let failure = StdError::source(&refusal).unwrap().downcast_ref::<TransportError>().unwrap();
            assert_eq!((failure.never_sent, failure.connect_backoff), (true, not_tried));
            assert!(endpoint.is_backing_off(Instant::now()));
        }
    }
}

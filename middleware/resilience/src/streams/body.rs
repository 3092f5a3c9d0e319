//! Body of a stream; ends when its connection drains or at its maximum age.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connection_draining::ConnectionDraining;
use crate::{
    jitter,
    rejection::{Rejection, reasons},
    respond::Protocol,
};

/// Reconnect delay sent to the clients of a connection, jittered by half: they must not all return
/// at once.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// Why a stream ended: completed, client closed it, connection closed, maximum age.
pub(super) const REASONS: [&str; 4] = [COMPLETED, CLIENT_CLOSED, CONNECTION_CLOSED, MAX_AGE];
const COMPLETED: &str = "done";
const CLIENT_CLOSED: &str = "reader";
const CONNECTION_CLOSED: &str = "connection";
const MAX_AGE: &str = "age";

/// Limits of one open stream.
pub(super) struct OpenStream {
    protocol: Protocol,
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    age: Pin<Box<Sleep>>,
    ended: bool,
}

impl fmt::Debug for OpenStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("protocol", &self.protocol).field("over", &self.ended).finish_non_exhaustive()
    }
}

impl OpenStream {
    pub(super) fn new(protocol: Protocol, draining: Option<&ConnectionDraining>, age: Duration) -> Self {
        let draining = draining.map(|draining| Box::pin(draining.notified()));
        Self { protocol, draining, age: Box::pin(sleep(age)), ended: false }
    }

    /// Ready, with the reason, when the server must end the stream.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if self.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(CONNECTION_CLOSED);
        }
        ready!(self.age.as_mut().poll(cx));
        Poll::Ready(MAX_AGE)
    }

    fn close(&mut self, reason: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            ended_counter(self.protocol, reason).increment(1);
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.close(CLIENT_CLOSED);
    }
}

pin_project! {
    /// Response body; limited if it is a stream, passed through otherwise.
    #[derive(Debug)]
    pub struct StreamBody<B> {
        #[pin]
        body: B,
        stream: Option<OpenStream>,
    }
}

impl<B> StreamBody<B> {
    pub(super) fn new(body: B, stream: Option<OpenStream>) -> Self {
        Self { body, stream }
    }
}

impl<B: Body> Body for StreamBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(stream) = this.stream else { return this.body.poll_frame(cx) };
        if stream.ended {
            return Poll::Ready(None);
        }
        // Checked first: a stream that always has data would never end otherwise.
        if let Poll::Ready(reason) = stream.poll_close(cx) {
            stream.close(reason);
            return Poll::Ready(match stream.protocol {
                Protocol::Http => None,
                Protocol::Grpc => Some(Ok(Frame::trailers(stream_ended_status()))),
            });
        }
        let frame = ready!(this.body.poll_frame(cx));
        if frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers)) {
            stream.close(COMPLETED);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.ended) || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.stream.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

/// Counter of ended streams.
pub(super) fn ended_counter(protocol: Protocol, reason: &'static str) -> metrics::Counter {
    metrics::counter!("palisade.streams.ended", "protocol" => protocol.name(), "reason" => reason)
}

fn stream_ended_status() -> HeaderMap {
    let refusal = Rejection::new(&reasons::STREAM_ENDED, "stream closed by the server, reconnect");
    let refusal = refusal.with_retry_after(jitter::jittered(RECONNECT_AFTER, 0.5, jitter::random_unit));
    let mut trailers = HeaderMap::new();
    let written = tonic::Status::from(refusal).add_header(&mut trailers);
    debug_assert!(written.is_ok(), "the status details are valid header values");
    trailers
}

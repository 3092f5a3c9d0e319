//! Body of a stream; ends when its connection drains or at its maximum age.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{StreamGuard, connection_draining::ConnectionDraining};
use crate::{
    context::RequestId,
    jitter,
    rejection::{Rejection, reasons},
    respond::{Protocol, problem_json},
};

/// Reconnect delay sent to the clients of a connection, jittered by half: they must not all return
/// at once.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// Shortest and longest time between two checks of a guard.
const CHECK_INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_hours(1));

/// Why a stream ended: completed, client closed it, connection closed, maximum age, guard (token).
pub(super) const REASONS: [&str; 5] = [COMPLETED, CLIENT_CLOSED, CONNECTION_CLOSED, MAX_AGE, GUARD];
const COMPLETED: &str = "done";
const CLIENT_CLOSED: &str = "reader";
const CONNECTION_CLOSED: &str = "connection";
const MAX_AGE: &str = "age";
const GUARD: &str = "token";

/// Limits of one open stream.
pub(super) struct OpenStream {
    protocol: Protocol,
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    age: Pin<Box<Sleep>>,
    guard: Option<Guard>,
    /// Whether the body is `text/event-stream`.
    has_events: bool,
    ended: bool,
}

/// Guard of an open stream, and the time of its next check.
struct Guard {
    condition: StreamGuard,
    next_check: Pin<Box<Sleep>>,
    /// Path of the request, for the problem document.
    path: Box<str>,
    request_id: Option<RequestId>,
}

/// End of a stream by the server.
enum End {
    Reconnect(&'static str),
    Rejected(Rejection),
}

impl fmt::Debug for OpenStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("protocol", &self.protocol).field("over", &self.ended).finish_non_exhaustive()
    }
}

impl OpenStream {
    pub(super) fn new(protocol: Protocol, draining: Option<&ConnectionDraining>, age: Duration) -> Self {
        let draining = draining.map(|draining| Box::pin(draining.notified()));
        Self { protocol, draining, age: Box::pin(sleep(age)), guard: None, has_events: false, ended: false }
    }

    pub(super) fn with_guard(mut self, condition: StreamGuard, path: &str, request_id: Option<RequestId>) -> Self {
        self.guard = Some(Guard { condition, next_check: Box::pin(sleep(Duration::ZERO)), path: path.into(), request_id });
        self
    }

    pub(super) fn with_events(mut self, has_events: bool) -> Self {
        self.has_events = has_events;
        self
    }

    /// Ready, with the reason, when the server must end the stream.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(guard) = &mut self.guard
            && let Poll::Ready(rejection) = guard.poll_rejected(cx)
        {
            return Poll::Ready(End::Rejected(rejection));
        }
        if self.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(End::Reconnect(CONNECTION_CLOSED));
        }
        ready!(self.age.as_mut().poll(cx));
        Poll::Ready(End::Reconnect(MAX_AGE))
    }

    /// Ends the stream. Returns its last frame, if the protocol has one.
    fn end(&mut self, end: End) -> Option<Frame<Bytes>> {
        let (reason, rejection) = match end {
            End::Reconnect(reason) => (reason, None),
            End::Rejected(rejection) => (GUARD, Some(rejection)),
        };
        self.close(reason);
        match (self.protocol, rejection) {
            (Protocol::Grpc, Some(rejection)) => Some(Frame::trailers(trailers(rejection))),
            (Protocol::Grpc, None) => Some(Frame::trailers(stream_ended_status())),
            (Protocol::Http, Some(rejection)) if self.has_events => {
                let (path, request_id) = self.guard.as_ref().map_or(("", None), |guard| (&guard.path, guard.request_id.clone()));
                let problem = problem_json(&rejection, path, request_id);
                Some(Frame::data(format!("event: error\ndata: {problem}\n\n").into()))
            }
            (Protocol::Http, _) => None,
        }
    }

    fn close(&mut self, reason: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            ended_counter(self.protocol, reason).increment(1);
        }
    }
}

impl Guard {
    /// Ready, with the reason, when the stream must end.
    fn poll_rejected(&mut self, cx: &mut Context<'_>) -> Poll<Rejection> {
        loop {
            ready!(self.next_check.as_mut().poll(cx));
            match self.condition.0.check() {
                Ok(interval) => {
                    let interval = interval.clamp(CHECK_INTERVAL.0, CHECK_INTERVAL.1);
                    self.next_check.as_mut().reset(Instant::now() + interval);
                }
                Err(rejection) => return Poll::Ready(rejection),
            }
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

impl<B: Body<Data = Bytes>> Body for StreamBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let Some(stream) = this.stream else { return this.body.poll_frame(cx) };
        if stream.ended {
            return Poll::Ready(None);
        }
        // Checked first: a stream that always has data would never end otherwise.
        if let Poll::Ready(end) = stream.poll_close(cx) {
            return Poll::Ready(stream.end(end).map(Ok));
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
    crate::counter!("palisade.streams.ended", "protocol" => protocol.name(), "reason" => reason)
}

fn stream_ended_status() -> HeaderMap {
    let refusal = Rejection::new(&reasons::STREAM_ENDED, "stream closed by the server, reconnect");
    let refusal = refusal.with_retry_after(jitter::jittered(RECONNECT_AFTER, 0.5, jitter::random_unit));
    trailers(refusal)
}

fn trailers(rejection: Rejection) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let written = tonic::Status::from(rejection).add_header(&mut trailers);
    debug_assert!(written.is_ok(), "the status details are valid header values");
    trailers
}

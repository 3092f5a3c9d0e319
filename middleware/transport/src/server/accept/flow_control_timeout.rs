//! HTTP/2 flow-control timeout: resets a stream whose peer grants no window, even if the connection
//! works and answers pings.
//!
//! hyper takes the next chunk from the body, then waits for window with the chunk in hand, without
//! a time limit. It does not poll the body meanwhile, so that a timer inside the body never fires.
//! Only the task around both can notice. The body, polled in the same task, records what hyper
//! waits for.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::record_connection_closed;
use palisade_resilience::metrics;

/// hyper copies a chunk that exceeds the window to the stream's buffer, one chunk at most. Also the
/// amount that a peer must read within the timeout.
const CHUNK_BYTES: usize = 32 * 1024;

thread_local! {
    /// State of the last body polled on this thread.
    static LAST_BODY_STATE: Cell<Option<BodyState>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
enum BodyState {
    /// The body returned a chunk.
    ChunkReturned,
    /// The body has no chunk yet.
    Pending,
}

/// Executor that runs each stream in a task, and drops (resets) a stream that could not send a
/// chunk within this timeout.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamExecutor(pub(super) Duration);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        TokioExecutor::new().execute(metrics::propagate(StallTimeout { stream, limit: self.0, timer: None }));
    }
}

pin_project! {
    struct StallTimeout<F> {
        #[pin]
        stream: F,
        limit: Duration,
        // Runs while a chunk waits for window.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F: Future<Output = ()>> Future for StallTimeout<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        LAST_BODY_STATE.set(None);
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match LAST_BODY_STATE.get() {
            Some(BodyState::ChunkReturned) => this.timer.set(Some(sleep(*this.limit))),
            Some(BodyState::Pending) => this.timer.set(None),
            // The body was not polled: hyper still waits for the same condition.
            None => {}
        }
        let Some(timer) = this.timer.as_pin_mut() else { return Poll::Pending };
        ready!(timer.poll(cx));
        record_connection_closed("stream_stall");
        Poll::Ready(())
    }
}

pin_project! {
    /// Splits a body into chunks and records each for [`StallTimeout`].
    #[derive(Debug)]
    pub(super) struct ChunkedBody<B> {
        #[pin]
        body: B,
        remainder: Bytes,
    }
}

impl<B> ChunkedBody<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, remainder: Bytes::new() }
    }
}

impl<B: Body<Data = Bytes>> Body for ChunkedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if this.remainder.is_empty() {
            LAST_BODY_STATE.set(Some(BodyState::Pending));
            let frame = match ready!(this.body.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => *this.remainder = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        LAST_BODY_STATE.set(Some(BodyState::ChunkReturned));
        let chunk = this.remainder.split_to(this.remainder.len().min(CHUNK_BYTES));
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.remainder.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.remainder.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn chunked_body_preserves_content() {
        let expected = Bytes::from(vec![7; 2 * CHUNK_BYTES + 1]);
        let mut body = ChunkedBody::new(Full::new(expected.clone()));
        let mut received = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((expected.len() - received.len()) as u64));
            let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(!chunk.is_empty() && chunk.len() <= CHUNK_BYTES);
            received.extend_from_slice(&chunk);
        }
        assert_eq!(received, expected);
        assert!(body.frame().await.is_none());
    }
}

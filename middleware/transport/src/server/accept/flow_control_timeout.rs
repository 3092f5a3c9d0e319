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

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::record_connection_closed;
use palisade_resilience::metrics;

thread_local! {
    /// State of the last body polled on this thread.
    static LAST_BODY_STATE: Cell<Option<BodyState>> = const { Cell::new(None) };
}

/// State of a response body.
#[derive(Clone, Copy)]
pub(super) enum BodyState {
    /// The body returned a chunk.
    ChunkReturned,
    /// The body has no chunk yet.
    Pending,
}

/// Records the state of the body that is being polled.
pub(super) fn set_body_state(state: BodyState) {
    LAST_BODY_STATE.set(Some(state));
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

//! End of a streamed request body. The time that a caller takes to send a stream is not the time of
//! the called service.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Resolves when a streamed request body has ended; in the extensions of its request.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestEnd(Arc<State>);

#[derive(Debug, Default)]
struct State {
    ended: AtomicBool,
    waker: AtomicWaker,
}

impl RequestEnd {
    /// Waits for the end; only the last task that polled is woken.
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        if self.0.ended.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Sets the end when it is dropped.
#[derive(Debug)]
struct EndGuard(RequestEnd);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.0.ended.store(true, Ordering::Release);
        self.0.0.waker.wake();
    }
}

pin_project! {
    /// A request body that reports its end, or its drop.
    #[derive(Debug)]
    pub(crate) struct SignalEnd<B> {
        #[pin]
        body: B,
        guard: Option<EndGuard>,
    }
}

impl<B> SignalEnd<B> {
    /// Wraps `body`, whose end resolves `end`.
    pub(crate) fn new(body: B, end: RequestEnd) -> Self {
        Self { body, guard: Some(EndGuard(end)) }
    }
}

impl<B: Body> Body for SignalEnd<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            *this.guard = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! A word to all connections of a port.

use std::{
    future::poll_fn,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use tokio_util::sync::CancellationToken;

/// A word to all connections. Waiting for it costs an atomic load when the connection's task runs: the future of a
/// [`CancellationToken`] takes a lock that all share each time, which under load is where the time went.
#[derive(Debug, Default)]
pub(super) struct Word {
    said: AtomicBool,
    wake: CancellationToken,
}

impl Word {
    pub(super) fn say(&self) {
        self.said.store(true, Ordering::Release);
        self.wake.cancel();
    }

    /// Ready once the word was said. To be polled by one and the same task.
    pub(super) async fn heard(&self) {
        let mut wake = pin!(self.wake.cancelled());
        // The first poll leaves the task's waker behind; it need not be left again.
        let mut waiting = false;
        poll_fn(|cx| {
            if waiting && !self.said.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            waiting = true;
            wake.as_mut().poll(cx)
        })
        .await;
    }
}

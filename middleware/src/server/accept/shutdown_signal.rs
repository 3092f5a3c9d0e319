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
pub(super) struct ShutdownSignal {
    is_set: AtomicBool,
    token: CancellationToken,
}

impl ShutdownSignal {
    pub(super) fn notify(&self) {
        self.is_set.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Ready once the word was said. To be polled by one and the same task.
    pub(super) async fn notified(&self) {
        let mut wake = pin!(self.token.cancelled());
        // The first poll leaves the task's waker behind; it need not be left again.
        let mut registered = false;
        poll_fn(|cx| {
            if registered && !self.is_set.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            registered = true;
            wake.as_mut().poll(cx)
        })
        .await;
    }
}

//! Shutdown signal to all connections of a port.

use std::{
    future::poll_fn,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use tokio_util::sync::CancellationToken;

/// Shutdown signal to all connections. Waiting costs one atomic load per poll of the connection's
/// task. The future of a [`CancellationToken`] takes a shared lock at every poll, which dominated
/// the profile under load.
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

    /// Completes after the notification. Must be polled by a single task.
    pub(super) async fn notified(&self) {
        let mut wake = pin!(self.token.cancelled());
        // The first poll registers the task's waker; it stays registered.
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

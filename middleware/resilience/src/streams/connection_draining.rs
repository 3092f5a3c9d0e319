//! Signal to the streams of a connection that the connection is draining.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Draining signal, in the extensions of every request. Set when the connection reaches its maximum
/// age or the server shuts down.
#[derive(Debug, Clone, Default)]
pub struct ConnectionDraining(CancellationToken);

impl ConnectionDraining {
    /// Signals that the connection must close.
    pub fn notify(&self) {
        self.0.cancel();
    }

    /// Ready once the connection must close.
    pub(super) fn notified(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}

//! The word to the streams of one connection that it has to go.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// In the extensions of every request: told when its connection has come of age, or its server stops.
#[derive(Debug, Clone, Default)]
pub struct ConnectionDraining(CancellationToken);

impl ConnectionDraining {
    /// The connection has to go.
    pub fn notify(&self) {
        self.0.cancel();
    }

    /// Ready once it has.
    pub(super) fn notified(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}

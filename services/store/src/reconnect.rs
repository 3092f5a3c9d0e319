//! Replacement of pooled connections after one of them turned out to be broken.

use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::pool::PoolConnectionMetadata;
use tokio::time::Instant;

/// Replaces pooled connections after one of them turned out to be broken. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Reconnect(Arc<Mutex<Option<Instant>>>);

impl Reconnect {
    /// Closes every connection that is open now at or after its next use.
    pub fn request(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether a connection was opened after the last request.
    pub fn is_current(&self, connection: &PoolConnectionMetadata) -> bool {
        self.0.lock().is_none_or(|requested_at| connection.age < requested_at.elapsed())
    }
}

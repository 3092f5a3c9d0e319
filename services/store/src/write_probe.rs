//! Timing of the writes by which readiness probes a database.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Interval of the writes by which readiness probes that the database can be written.
const INTERVAL: Duration = Duration::from_secs(5);

/// Decides when readiness writes to the database.
#[derive(Debug, Default)]
pub struct WriteProbe(Mutex<Option<Instant>>);

impl WriteProbe {
    /// Whether the last successful write is too long ago.
    pub fn is_due(&self) -> bool {
        self.0.lock().is_none_or(|written_at| written_at.elapsed() >= INTERVAL)
    }

    /// Records a successful write.
    pub fn succeeded(&self) {
        *self.0.lock() = Some(Instant::now());
    }
}

//! Wall clock: time since the epoch, and with the feature `clock` an injectable clock, so that
//! time-dependent decisions can be tested.

#[cfg(feature = "clock")]
mod wall_clock;

use std::time::{Duration, SystemTime};

#[cfg(feature = "clock")]
pub use wall_clock::{Clock, ManualClock, SystemClock, after, age, before, truncate};

/// Returns the time since the Unix epoch; zero before it.
#[expect(clippy::disallowed_methods, reason = "only this module reads the system clock")]
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

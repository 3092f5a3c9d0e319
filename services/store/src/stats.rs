//! Gauges read from a store.

use std::time::Duration;

/// Interval at which the gauges are read from the store. Counters in memory would not survive a
/// restart.
pub const STATS_INTERVAL: Duration = Duration::from_secs(5);
/// Failed reads in a row after which the gauges are unknown.
pub const MISSED_READS: u32 = 3;

//! Token bucket of log records per reason: a failure that repeats does not flood the log, and the
//! next record counts those that were left out.

use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

/// Records of one reason at once.
const BURST: u32 = 100;
/// Time after which one more record is allowed.
const REFILL: Duration = Duration::from_millis(20);

/// Budget of log records, by reason. Reasons must be bounded by code.
///
/// ```
/// use palisade_resilience::log_budget::LogBudget;
/// # tokio_test::block_on(async {
/// let budget = LogBudget::default();
/// assert_eq!(budget.admit("overloaded"), Some(0), "written, and none was left out before");
/// # });
/// ```
#[derive(Debug, Default)]
pub struct LogBudget(Mutex<FxHashMap<&'static str, Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled_at: Instant,
    left_out: u64,
}

impl LogBudget {
    /// Takes a record of `reason` from the budget. Returns how many were left out since the last
    /// one, or `None` if this one has to be left out.
    pub fn admit(&self, reason: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut buckets = self.0.lock();
        let bucket = buckets.entry(reason).or_insert(Bucket { tokens: BURST, refilled_at: now, left_out: 0 });
        let refilled = now.saturating_duration_since(bucket.refilled_at).as_millis() / REFILL.as_millis();
        let refilled = u32::try_from(refilled).unwrap_or(u32::MAX);
        if refilled > 0 {
            bucket.tokens = bucket.tokens.saturating_add(refilled).min(BURST);
            bucket.refilled_at = now;
        }
        if bucket.tokens == 0 {
            bucket.left_out += 1;
            return None;
        }
        bucket.tokens -= 1;
        Some(std::mem::take(&mut bucket.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn records_above_the_budget_are_counted() {
        let budget = LogBudget::default();
        for _ in 0..BURST {
            assert_eq!(budget.admit("internal"), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(budget.admit("internal"), None);
        }
        assert_eq!(budget.admit("overloaded"), Some(0), "each reason has its own budget");
        tokio::time::advance(REFILL).await;
        assert_eq!(budget.admit("internal"), Some(7));
        assert_eq!(budget.admit("internal"), None);
        tokio::time::advance(REFILL * (BURST * 2)).await;
        assert_eq!(budget.admit("internal"), Some(1));
    }
}

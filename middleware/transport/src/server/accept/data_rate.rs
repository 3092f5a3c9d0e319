//! Minimum data rate of a peer: slow readers and writers hold memory and connections.

use std::time::Duration;

use tokio::time::Instant;

/// Minimum rate, averaged over the grace period.
#[derive(Debug, Clone, Copy)]
pub(super) struct MinimumRate {
    /// 0 requires progress within each grace period, however little.
    pub(super) bytes_per_second: u64,
    /// Maximum time without progress.
    pub(super) grace: Duration,
}

/// Time credit of one transfer: waiting for the peer spends it, transferred bytes restore it. Pure:
/// takes `now`.
#[derive(Debug)]
pub(super) struct RateCredit {
    rate: MinimumRate,
    left: Duration,
    waiting_since: Option<Instant>,
}

impl RateCredit {
    /// Starts with the credit of a whole grace period.
    pub(super) fn new(rate: MinimumRate) -> Self {
        Self { rate, left: rate.grace, waiting_since: None }
    }

    /// Starts or continues to wait for the peer. Returns when the credit is spent.
    pub(super) fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.waiting_since.get_or_insert(now);
        since.checked_add(self.left).unwrap_or(since)
    }

    /// Returns whether the transfer waits for the peer.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// Ends the wait, if any, after `bytes` were transferred.
    pub(super) fn transferred(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
        let MinimumRate { bytes_per_second, grace } = self.rate;
        let restored = match bytes_per_second {
            0 if bytes > 0 => grace,
            0 => Duration::ZERO,
            rate => Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / rate),
        };
        self.left = self.left.saturating_add(restored).min(grace);
    }

    /// Stops waiting without a transfer: the peer may be silent now.
    pub(super) fn pause(&mut self) {
        self.waiting_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Transfers `bytes` every `interval`, and returns the seconds until the credit is spent,
    /// within five minutes.
    fn spent_after(rate: u64, bytes: usize, interval: Duration) -> Option<u64> {
        let start = Instant::now();
        let mut credit = RateCredit::new(MinimumRate { bytes_per_second: rate, grace: 5 * SECOND });
        let mut now = start;
        while now - start < 300 * SECOND {
            let end = credit.wait(now);
            if end < now + interval {
                return Some((end - start).as_secs());
            }
            now += interval;
            credit.transferred(bytes, now);
        }
        None
    }

    #[test]
    fn slow_transfer_spends_the_credit() {
        assert_eq!(spent_after(240, 0, SECOND), Some(5));
        assert_eq!(spent_after(240, 24, SECOND), Some(5));
        assert_eq!(spent_after(240, 120, SECOND), Some(9));
        assert_eq!(spent_after(240, 240, SECOND), None);
        assert_eq!(spent_after(240, 960, 4 * SECOND), None);
        assert_eq!(spent_after(240, 1_000_000, 6 * SECOND), Some(5), "the longest pause is the grace period");
        assert_eq!(spent_after(0, 1, 4 * SECOND), None);
        assert_eq!(spent_after(0, 0, SECOND), Some(5));
    }

    #[test]
    fn waiting_for_ourselves_is_free() {
        let start = Instant::now();
        let mut credit = RateCredit::new(MinimumRate { bytes_per_second: 240, grace: 5 * SECOND });
        assert_eq!(credit.wait(start), start + 5 * SECOND);
        credit.pause();
        assert_eq!(credit.wait(start + 60 * SECOND), start + 65 * SECOND);
    }
}

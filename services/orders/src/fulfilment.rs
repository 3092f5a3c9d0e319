//! Fulfilment of completed orders: products takes the units of the reservation off the stock for
//! good. Queued when an order is completed, retried until products has answered.

use std::time::Duration;

use crate::saga;

/// Result of a fulfilment call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FulfilOutcome {
    /// The units have left the stock.
    Done,
    /// Products has no confirmed reservation of the order, e.g. after a restored backup.
    Missing,
    /// The outcome is unknown.
    Unknown {
        /// Minimum delay before a retry, if products requested one.
        retry_after: Option<Duration>,
    },
}

impl FulfilOutcome {
    /// Returns the delay of the next attempt after `attempts` attempts, or `None` if no work is
    /// left. `random` is a uniformly distributed number.
    pub fn retry_delay(&self, attempts: u32, random: u32) -> Option<Duration> {
        match self {
            Self::Done | Self::Missing => None,
            Self::Unknown { retry_after } => Some(saga::backoff(attempts, *retry_after, random)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unknown_outcome_is_retried() {
        assert_eq!(FulfilOutcome::Done.retry_delay(1, u32::MAX), None);
        assert_eq!(FulfilOutcome::Missing.retry_delay(1, u32::MAX), None);
        let unknown = |retry_after| FulfilOutcome::Unknown { retry_after };
        let delay = |outcome: FulfilOutcome, attempts| outcome.retry_delay(attempts, u32::MAX).unwrap();
        assert!(delay(unknown(None), 1) < delay(unknown(None), 3));
        assert_eq!(delay(unknown(None), u32::MAX).as_secs(), 4, "just below the maximum");
        assert_eq!(delay(unknown(Some(Duration::from_secs(3))), 1).as_secs(), 3);
        assert_eq!(delay(unknown(Some(Duration::from_secs(30))), 1).as_secs(), 5, "a longer delay is shortened");
    }
}

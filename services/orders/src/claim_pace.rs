//! Pace of the workers that call products, by the state of its circuit breaker. Orders that are not
//! claimed stay due, so that they run as soon as the breaker closes.

use palisade_middleware::circuit_breaker::State;

/// Maximum number of claims per poll while the breaker is half-open: one round of its probes.
const PROBES: usize = 5;

/// Pace of one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClaimPace {
    /// Maximum number of claims.
    pub(crate) limit: usize,
    /// Whether to poll again at once if the limit was reached.
    pub(crate) repeats: bool,
}

impl ClaimPace {
    /// Returns the pace of a worker with `free` slots. While calls are rejected, it claims one
    /// batch per poll, so that orders past their deadline still fail.
    pub(crate) fn new(breaker: State, free: usize) -> Self {
        match breaker {
            State::Closed | State::Disabled | State::MetricsOnly => Self { limit: free, repeats: true },
            State::HalfOpen => Self { limit: free.min(PROBES), repeats: false },
            State::Open | State::ForcedOpen => Self { limit: free, repeats: false },
        }
    }

    /// Returns whether to poll again at once after `claimed` claims.
    pub(crate) fn is_more_due(self, claimed: usize) -> bool {
        self.repeats && claimed > 0 && claimed == self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_limited_until_the_breaker_closes() {
        for (breaker, limit, is_more_due) in [
            (State::Closed, 32, true),
            (State::Disabled, 32, true),
            (State::MetricsOnly, 32, true),
            (State::HalfOpen, PROBES, false),
            (State::Open, 32, false),
            (State::ForcedOpen, 32, false),
        ] {
            let pace = ClaimPace::new(breaker, 32);
            assert_eq!((pace.limit, pace.is_more_due(pace.limit)), (limit, is_more_due), "{breaker:?}");
            assert!(!pace.is_more_due(limit - 1), "{breaker:?}: nothing else is due");
            assert_eq!(ClaimPace::new(breaker, 2).limit, 2, "{breaker:?}: no more than the free slots");
            assert!(!ClaimPace::new(breaker, 0).is_more_due(0), "{breaker:?}: no free slot");
        }
    }
}

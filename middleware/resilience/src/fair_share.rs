//! Fair shares of a limit: max-min fairness between callers. Pure.
//!
//! A caller's share is the limit divided by the number of callers that hold permits, with one more
//! counted for a newcomer. Below its share a caller gets a permit as long as there is any. Above it
//! the caller may use spare capacity, except for a reserve of an eighth of the limit. So a caller
//! with little demand is served although another one takes all that it can get, and when a limit is
//! reached the callers above their share are rejected first. As their requests end, the shares
//! become equal (max-min fairness). The table is bounded by the limit: only callers with permits
//! have an entry.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::{
    caller::CallerKey,
    jitter,
    rejection::{Rejection, reasons},
};

/// The reserve for callers below their share is this part of the limit.
const RESERVE_DIVISOR: usize = 8;

/// Permits in use by caller.
#[derive(Debug, Default)]
pub(crate) struct FairShare {
    callers: FxHashMap<CallerKey, usize>,
    in_use: usize,
}

/// Why a caller gets no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// The limit is reached.
    Full,
    /// This caller has its share already.
    AboveShare,
}

impl NoPermit {
    /// Returns the rejection: 503 if the process is overloaded, 429 if the caller takes more than
    /// its share. `what` is the limited thing, in plural.
    pub(crate) fn rejection(self, what: &str, retry_after: Duration) -> Rejection {
        // Jitter: clients rejected together must not return together.
        let wait = jitter::jittered(retry_after, 0.5, jitter::random_unit);
        let rejection = match self {
            Self::Full => Rejection::new(&reasons::OVERLOADED, format!("too many {what}")),
            Self::AboveShare => Rejection::new(&reasons::RATE_LIMITED, format!("too many {what} of this caller")),
        };
        rejection.with_retry_after(wait)
    }
}

/// Returns whether a caller with `own` units is below its share of `limit` among `callers` callers.
pub(crate) fn is_below_share(own: usize, limit: usize, callers: usize) -> bool {
    own * (callers + 1) < limit
}

/// Returns the part of `limit` that is reserved for callers below their share.
pub(crate) fn reserve(limit: usize) -> usize {
    limit / RESERVE_DIVISOR
}

impl FairShare {
    /// Takes a permit for `caller`.
    pub(crate) fn try_acquire(&mut self, caller: CallerKey, limit: usize) -> Result<(), NoPermit> {
        let own = self.callers.get(&caller).copied().unwrap_or(0);
        let callers = self.callers.len() + usize::from(own == 0);
        let below_share = is_below_share(own, limit, callers);
        let available = if below_share || crate::planted!("no fair share") { limit } else { limit - reserve(limit) };
        if self.in_use >= available {
            let takes_too_much = self.in_use < limit || own * callers > limit;
            return Err(if takes_too_much { NoPermit::AboveShare } else { NoPermit::Full });
        }
        self.in_use += 1;
        *self.callers.entry(caller).or_default() += 1;
        Ok(())
    }

    /// Returns a permit of `caller`.
    pub(crate) fn release(&mut self, caller: CallerKey) {
        if let Some(own) = self.callers.get_mut(&caller) {
            self.in_use -= 1;
            *own -= 1;
            if *own == 0 {
                self.callers.remove(&caller);
            }
        }
    }

    /// Returns the number of permits in use.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }

    /// Returns the number of permits of `caller`.
    pub(crate) fn used_by(&self, caller: CallerKey) -> usize {
        self.callers.get(&caller).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(number: u64) -> CallerKey {
        CallerKey::number(number)
    }

    /// Takes permits of one caller until it gets no more.
    fn take_all(shares: &mut FairShare, of: u64, limit: usize) -> NoPermit {
        loop {
            if let Err(refused) = shares.try_acquire(caller(of), limit) {
                return refused;
            }
        }
    }

    #[test]
    fn newcomer_gets_permits_beside_a_greedy_caller() {
        let mut shares = FairShare::default();
        assert_eq!(take_all(&mut shares, 1, 80), NoPermit::AboveShare);
        assert_eq!(shares.used_by(caller(1)), 70);
        take_all(&mut shares, 2, 80);
        assert_eq!((shares.used_by(caller(2)), shares.in_use()), (10, 80));
        // Released permits go to the caller below its share, until both are equal.
        for _ in 0..40 {
            shares.release(caller(1));
            assert_eq!(shares.try_acquire(caller(1), 80), Err(NoPermit::AboveShare));
            if shares.try_acquire(caller(2), 80).is_err() {
                break;
            }
        }
        assert!(shares.used_by(caller(2)) >= 80 / 3, "{shares:?}");
    }

    #[test]
    fn many_small_callers_use_the_whole_limit() {
        let mut shares = FairShare::default();
        assert!((0..16).all(|of| shares.try_acquire(caller(of), 16).is_ok()));
        assert_eq!(shares.try_acquire(caller(17), 16), Err(NoPermit::Full));
    }

    #[test]
    fn limit_of_one_is_usable() {
        let mut shares = FairShare::default();
        assert_eq!(shares.try_acquire(caller(1), 1), Ok(()));
        assert_eq!(shares.try_acquire(caller(2), 1), Err(NoPermit::Full));
        shares.release(caller(1));
        assert_eq!(shares.try_acquire(caller(2), 1), Ok(()));
        assert_eq!(shares.callers.len(), 1, "callers without permits have no entry");
    }

    proptest! {
        #[test]
        fn permits_add_up_and_never_exceed_the_limit(limit in 1..40_usize, steps in prop::collection::vec((0..6_u64, any::<bool>()), 1..300)) {
            let mut shares = FairShare::default();
            for (of, takes) in steps {
                if takes {
                    let _ = shares.try_acquire(caller(of), limit);
                } else {
                    shares.release(caller(of));
                }
                prop_assert!(shares.in_use() <= limit);
                prop_assert_eq!(shares.callers.values().sum::<usize>(), shares.in_use());
                prop_assert!(shares.callers.values().all(|own| *own > 0));
            }
        }
    }
}

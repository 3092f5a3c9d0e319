//! Counters of requests that authentication rejected, by reason: a lock-out of all users begins
//! with one of them.

use std::error::Error;

use palisade_resilience::rejection::{Rejection, reasons};

use super::verifier::{REVOKED, SIGNATURE, UNKNOWN_ISSUER, UNKNOWN_KEY};

/// Values of the label `reason`.
const REASONS: [&str; 9] =
    ["missing", "repeated", "expired", "revoked", "unknown_issuer", "unknown_key", "signature", "keys_unavailable", "invalid"];

/// `palisade.auth.rejections`, one counter per reason.
#[derive(Debug)]
pub(super) struct RejectionCounters([metrics::Counter; REASONS.len()]);

impl RejectionCounters {
    /// Registers all reasons with 0.
    pub(super) fn new() -> Self {
        let counters = Self(REASONS.map(|reason| palisade_resilience::counter!("palisade.auth.rejections", "reason" => reason)));
        counters.0.iter().for_each(|counter| counter.increment(0));
        counters
    }

    /// Counts a rejection by its reason.
    pub(super) fn count(&self, rejection: &Rejection) {
        let reason = reason(rejection);
        if let Some(index) = REASONS.iter().position(|known| *known == reason) {
            self.0[index].increment(1);
        }
    }
}

/// Returns the label of a rejection. The cause of an invalid token is only in its source, which the
/// caller does not see.
fn reason(rejection: &Rejection) -> &'static str {
    let cause = rejection.source().map(ToString::to_string);
    match (rejection.reason(), cause.as_deref()) {
        (known, _) if *known == reasons::TOKEN_EXPIRED => "expired",
        (known, _) if *known == reasons::UPSTREAM_UNAVAILABLE => "keys_unavailable",
        (known, _) if *known == reasons::INVALID_PARAMETER => "repeated",
        (_, None) if rejection.detail() == REVOKED => "revoked",
        (_, None) => "missing",
        (_, Some(UNKNOWN_ISSUER)) => "unknown_issuer",
        (_, Some(UNKNOWN_KEY)) => "unknown_key",
        (_, Some(SIGNATURE)) => "signature",
        (_, Some(_)) => "invalid",
    }
}

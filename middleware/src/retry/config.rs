//! What an operator may set of retries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// More attempts than this are never made (gRFC A6).
const MAX_ATTEMPTS: u32 = 5;

/// How often, how fast, and at whose cost a call is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to retry at all.
    pub enabled: bool,
    /// Attempts in total, the first included: 2 or more; above 5 counts as 5.
    pub max_attempts: u32,
    /// The longest pause before the second attempt, in milliseconds; twice as long before each further one.
    pub base_ms: u64,
    /// The longest pause at all, in milliseconds.
    pub max_ms: u64,
    /// No attempt is begun with less time left than this many milliseconds.
    pub min_attempt_ms: u64,
    /// Each failure takes one token, each success gives a tenth back; retries stop while half of them or more are gone.
    pub tokens: u32,
    /// At most this share of the calls in flight are retries.
    pub in_flight_percent: u32,
    /// As many retries may always be in flight.
    pub in_flight_min: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            max_attempts: 3,
            base_ms: 50,
            max_ms: 1_000,
            min_attempt_ms: 10,
            tokens: 100,
            in_flight_percent: 20,
            in_flight_min: 3,
        }
    }
}

/// A value that makes no sense; the text begins with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(&'static str);

impl Config {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let rules = [
            (self.max_attempts >= 2, "max_attempts must be at least 2; set enabled = false for no retries"),
            (self.base_ms >= 1, "base_ms must be at least 1"),
            (self.max_ms >= self.base_ms, "max_ms must be at least base_ms"),
            ((1..=1_000_000).contains(&self.tokens), "tokens must be 1..1000000"),
            (self.in_flight_percent <= 100, "in_flight_percent must be at most 100"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(InvalidConfig(broken)),
            None => Ok(()),
        }
    }

    /// Attempts in total.
    pub(super) fn attempts(&self) -> u32 {
        if self.enabled { self.max_attempts.min(MAX_ATTEMPTS) } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_five_attempts_are_five_and_one_is_an_error() {
        assert_eq!(Config { max_attempts: 9, ..Config::default() }.attempts(), 5);
        assert_eq!(Config { enabled: false, ..Config::default() }.attempts(), 1);
        for max_attempts in [0, 1] {
            assert!(Config { max_attempts, ..Config::default() }.validate().is_err());
        }
        assert_eq!(Config::default().validate(), Ok(()));
    }
}

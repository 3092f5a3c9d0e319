//! Settings of retries.

use serde::{Deserialize, Serialize};

/// Maximum number of attempts (gRFC A6).
const MAX_ATTEMPTS: u32 = 5;

/// Retries with exponential backoff and a retry budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Enables retries.
    pub enabled: bool,
    /// Maximum attempts including the first, 2 or more. Values above 5 count as 5.
    pub max_attempts: u32,
    /// Maximum backoff before the second attempt, milliseconds. It doubles before each further
    /// attempt.
    pub base_ms: u64,
    /// Maximum backoff, milliseconds.
    pub max_ms: u64,
    /// Minimum remaining time for an attempt, milliseconds. With less time left no attempt is made.
    pub min_attempt_ms: u64,
    /// Size of the retry token bucket. Each failure takes one token, each success returns a tenth;
    /// retries are denied while half or fewer are left.
    pub tokens: u32,
    /// Maximum share of the calls in flight that may be retries, percent.
    pub in_flight_percent: u32,
    /// Number of retries in flight that is always allowed, whatever the share.
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

/// Invalid setting; the text begins with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(&'static str);

impl Config {
    /// Validates every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let rules = [
            (self.max_attempts >= 2, "max_attempts must be at least 2; set enabled = false to disable retries"),
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

    /// Returns the maximum attempts, 1 if retries are disabled.
    pub(super) fn attempts(&self) -> u32 {
        if self.enabled { self.max_attempts.min(MAX_ATTEMPTS) } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_attempts_is_capped_at_five_and_one_is_invalid() {
        assert_eq!(Config { max_attempts: 9, ..Config::default() }.attempts(), 5);
        assert_eq!(Config { enabled: false, ..Config::default() }.attempts(), 1);
        for max_attempts in [0, 1] {
            assert!(Config { max_attempts, ..Config::default() }.validate().is_err());
        }
        assert_eq!(Config::default().validate(), Ok(()));
    }
}

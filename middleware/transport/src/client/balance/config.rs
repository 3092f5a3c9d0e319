//! Settings of client-side load balancing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use palisade_resilience::circuit_breaker;

/// Load balancing across the addresses of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Decay time constant of the latency EWMA (1/e), milliseconds. An observed latency or failure
    /// loses two thirds of its weight in this time.
    pub decay_ms: u64,
    /// Maximum share of endpoints ejected at the same time, above 0 and at most 1. One endpoint may
    /// always be ejected.
    pub max_ejected: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { decay_ms: 10_000, max_ejected: 0.5 }
    }
}

/// Invalid load balancing setting; the text begins with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(&'static str);

impl Config {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.decay_ms == 0 {
            return Err(InvalidConfig("decay_ms must be at least 1"));
        }
        if self.max_ejected > 0.0 && self.max_ejected <= 1.0 {
            return Ok(());
        }
        Err(InvalidConfig("max_ejected must be above 0 and at most 1"))
    }
}

/// Defaults of an endpoint's breaker (outlier detection). It opens and probes sooner than the
/// target's breaker, because other endpoints are available. It uses few probes, because each is a
/// user call that would succeed elsewhere, and one failed probe is enough. A restart takes seconds,
/// and a premature probe costs one retry.
pub fn outlier_detection_defaults() -> circuit_breaker::Config {
    circuit_breaker::Config { consecutive_failures: 5, open_ms: 1_000, max_open_ms: 5_000, probes: 2, ..circuit_breaker::Config::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_error_names_setting() {
        let text = |config: Config| config.validate().unwrap_err().to_string();
        assert!(text(Config { decay_ms: 0, ..Config::default() }).starts_with("decay_ms "));
        for share in [0.0, 1.1, f64::NAN] {
            assert!(text(Config { max_ejected: share, ..Config::default() }).starts_with("max_ejected "), "{share}");
        }
        assert_eq!((Config::default().validate(), outlier_detection_defaults().validate()), (Ok(()), Ok(())));
    }
}

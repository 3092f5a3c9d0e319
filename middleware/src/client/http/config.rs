//! Settings of HTTP calls to one origin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{InvalidConfig, config::check_limits};
use palisade_resilience::{circuit_breaker, retry};

/// Client settings for one HTTP origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Timeout for the TCP and TLS handshakes of a connection, milliseconds.
    pub connect_timeout_ms: u64,
    /// Timeout of one attempt until its last byte, milliseconds.
    pub attempt_timeout_ms: u64,
    /// Timeout of a call with all its attempts, milliseconds. An earlier deadline of the incoming
    /// request takes precedence.
    pub call_timeout_ms: u64,
    /// Maximum calls in flight (bulkhead). Calls above it are rejected.
    pub max_in_flight: u32,
    /// Retry policy and budget.
    pub retry: retry::Config,
    /// Circuit breaker for this origin.
    pub circuit_breaker: circuit_breaker::Config,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 1_000,
            attempt_timeout_ms: 5_000,
            call_timeout_ms: 9_000,
            max_in_flight: 128,
            retry: retry::Config::default(),
            circuit_breaker: circuit_breaker::Config::default(),
        }
    }
}

impl HttpConfig {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        check_limits([self.connect_timeout_ms, self.attempt_timeout_ms, self.call_timeout_ms], self.max_in_flight)?;
        self.retry.validate()?;
        self.circuit_breaker.validate().map_err(InvalidConfig::Breaker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_error_names_setting() {
        let valid = HttpConfig::default();
        assert!(valid.validate().is_ok());
        let retry = retry::Config { max_attempts: 1, ..retry::Config::default() };
        let breaker = circuit_breaker::Config { probes: 0, ..circuit_breaker::Config::default() };
        for (key, invalid) in [
            ("connect_timeout_ms ", HttpConfig { connect_timeout_ms: 0, ..valid.clone() }),
            ("attempt_timeout_ms ", HttpConfig { attempt_timeout_ms: 0, ..valid.clone() }),
            ("call_timeout_ms ", HttpConfig { call_timeout_ms: 0, ..valid.clone() }),
            ("max_in_flight ", HttpConfig { max_in_flight: 0, ..valid.clone() }),
            ("retry.max_attempts ", HttpConfig { retry, ..valid.clone() }),
            ("circuit_breaker.probes ", HttpConfig { circuit_breaker: breaker, ..valid }),
        ] {
            let text = invalid.validate().unwrap_err().to_string();
            assert!(text.starts_with(key), "{key}: {text}");
        }
    }
}

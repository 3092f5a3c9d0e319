//! What an operator may set of one HTTP hop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    circuit_breaker,
    client::{InvalidConfig, config::check_limits},
    retry,
};

/// How one origin is called over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The longest the handshakes of a connection may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The longest one attempt may take until its last byte, in milliseconds.
    pub attempt_timeout_ms: u64,
    /// The longest a call may take with all its attempts, in milliseconds; less if its request has less time left.
    pub call_timeout_ms: u64,
    /// Calls in flight at once; more are refused.
    pub max_in_flight: u32,
    /// When a call is tried again.
    pub retry: retry::Config,
    /// When calls stop.
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
    fn an_error_names_the_key() {
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
            ("breaker.probes ", HttpConfig { circuit_breaker: breaker, ..valid }),
        ] {
            let text = invalid.validate().unwrap_err().to_string();
            assert!(text.starts_with(key), "{key}: {text}");
        }
    }
}

//! Settings of the connections to one address.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keep-alive and reconnect backoff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// Interval of HTTP/2 keep-alive PINGs on a silent connection, with or without calls,
    /// milliseconds.
    pub keep_alive_ms: u64,
    /// Timeout of a keep-alive PING, milliseconds. The connection is closed afterwards.
    pub keep_alive_timeout_ms: u64,
    /// Backoff after the first failed connection attempt, milliseconds. Doubles with each further
    /// failure, with 20 % jitter.
    pub connect_backoff_ms: u64,
    /// Maximum connect backoff, milliseconds. Keep it well below the open time of the circuit
    /// breakers, so that their probes can connect.
    pub max_connect_backoff_ms: u64,
}

impl Default for Connection {
    fn default() -> Self {
        Self { keep_alive_ms: 20_000, keep_alive_timeout_ms: 5_000, connect_backoff_ms: 50, max_connect_backoff_ms: 1_000 }
    }
}

/// Invalid connection setting; the text begins with its key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// Value that must be positive.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The maximum is below the initial backoff.
    #[error("max_connect_backoff_ms must be at least connect_backoff_ms")]
    Order,
}

impl Connection {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let required = [
            ("keep_alive_ms", self.keep_alive_ms),
            ("keep_alive_timeout_ms", self.keep_alive_timeout_ms),
            ("connect_backoff_ms", self.connect_backoff_ms),
        ];
        match required.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(InvalidConfig::Zero(key)),
            None if self.max_connect_backoff_ms < self.connect_backoff_ms => Err(InvalidConfig::Order),
            None => Ok(()),
        }
    }
}

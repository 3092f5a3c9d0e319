//! What an operator may set of the connections to one address.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a connection is kept, and when the next is tried after a failed one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// A peer that was silent for this long is asked whether it is there (HTTP/2 PING), calls or not, in milliseconds.
    pub keep_alive_ms: u64,
    /// Without an answer within this time the connection is given up, in milliseconds.
    pub keep_alive_timeout_ms: u64,
    /// The pause after the first failed attempt to connect; doubled with each further one, 20 % more or less. In milliseconds.
    pub connect_backoff_ms: u64,
    /// The longest pause, in milliseconds. Well below the wait of the breakers, so that their probes find the way free.
    pub max_connect_backoff_ms: u64,
}

impl Default for Connection {
    fn default() -> Self {
        Self { keep_alive_ms: 20_000, keep_alive_timeout_ms: 5_000, connect_backoff_ms: 50, max_connect_backoff_ms: 1_000 }
    }
}

/// A value that makes no sense; the text begins with its key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// A number out of its range.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// The longest is shorter than the first.
    #[error("max_pause_ms must be at least pause_ms")]
    Order,
}

impl Connection {
    pub(super) fn validate(&self) -> Result<(), InvalidConfig> {
        let required =
            [("keep_alive_ms", self.keep_alive_ms), ("keep_alive_timeout_ms", self.keep_alive_timeout_ms), ("pause_ms", self.connect_backoff_ms)];
        match required.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(InvalidConfig::Zero(key)),
            None if self.max_connect_backoff_ms < self.connect_backoff_ms => Err(InvalidConfig::Order),
            None => Ok(()),
        }
    }
}

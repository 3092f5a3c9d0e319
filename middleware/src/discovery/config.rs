//! What an operator may set of the search for endpoints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How addresses are found, where `url` names a registry and not the addresses themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// DNS is asked again no sooner than after this long, whatever the time to live of its records, milliseconds.
    pub min_refresh_ms: u64,
    /// DNS is asked again after this long at the latest, milliseconds.
    pub max_refresh_ms: u64,
    /// Addresses beyond this many are left out: a registry that is broken or hostile is not to use up our memory.
    pub max_endpoints: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_refresh_ms: 1_000, max_refresh_ms: 30_000, max_endpoints: 256 }
    }
}

/// A value that makes no sense; the text begins with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(&'static str);

impl Config {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.min_refresh_ms == 0 {
            return Err(InvalidConfig("min_refresh_ms must be at least 1"));
        }
        if self.max_refresh_ms < self.min_refresh_ms {
            return Err(InvalidConfig("max_refresh_ms must not be less than min_refresh_ms"));
        }
        if self.max_endpoints == 0 {
            return Err(InvalidConfig("max_endpoints must be at least 1"));
        }
        Ok(())
    }
}

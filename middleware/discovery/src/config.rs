//! Settings of service discovery.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Service discovery of an upstream, if `url` is not a static list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Minimum interval between DNS lookups, regardless of the TTL of the records, milliseconds.
    pub min_refresh_ms: u64,
    /// Maximum interval between DNS lookups, milliseconds.
    pub max_refresh_ms: u64,
    /// Maximum addresses per upstream. Further addresses are ignored, so that a broken or hostile
    /// registry cannot exhaust memory.
    pub max_endpoints: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_refresh_ms: 1_000, max_refresh_ms: 30_000, max_endpoints: 256 }
    }
}

/// Invalid discovery setting; the text begins with its key.
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

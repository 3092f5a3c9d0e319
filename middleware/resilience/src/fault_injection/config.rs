//! Settings of fault injection.

use serde::{Deserialize, Serialize};

/// Fault injection. Rules are set through the admin port and do not survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Enables `/faults` on the admin port, which can delay, fail, abort or hang requests. For game
    /// days; never leave it on.
    pub enabled: bool,
}

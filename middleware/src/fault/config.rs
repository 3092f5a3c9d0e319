//! Whether faults may be injected at all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Faults on purpose. The rules themselves come by the admin port and do not survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether `/faults` on the admin port can make requests slow, fail, break or hang. For game days; never left on.
    pub enabled: bool,
}

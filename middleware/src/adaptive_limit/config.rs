//! What an operator may set of the adaptive limit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Error;

/// How many requests may run at once, found out from how long they take; what is above it waits a little.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether there is such a limit at all.
    pub enabled: bool,
    /// Requests at once before anything was measured. Too high costs a second, too low many: it falls faster than it grows.
    pub initial_limit: u32,
    /// Never fewer requests at once than this.
    pub min_limit: u32,
    /// Never more requests at once than this.
    pub max_limit: u32,
    /// How often latency is looked at, milliseconds; less often if there are few requests or they take long.
    pub window_ms: u64,
    /// How many windows the usual latency is an average of.
    pub baseline_windows: u32,
    /// How many times the usual latency is still no sign of overload, at least 1.
    pub tolerance: f64,
    /// How much of a change is made at once, above 0 and at most 1.
    pub smoothing: f64,
    /// A latency up to this many milliseconds is never a sign of overload.
    pub min_latency_ms: u64,
    /// With this many times the limit waiting, requests begin to be refused at random.
    pub queue_shed_start: f64,
    /// With this many times the limit waiting, every further request is refused.
    pub queue_max: f64,
    /// Longer than this nobody should wait, milliseconds; in a lasting queue nobody does.
    pub queue_target_ms: u64,
    /// A queue lasts when the wait was too long for this many milliseconds.
    pub queue_interval_ms: u64,
    /// Percentage of the limit that critical requests can count on while others want it too.
    pub critical_percent: u8,
    /// Percentage of the limit that requests of default priority can count on while others want it too.
    pub default_percent: u8,
    /// Percentage of the limit that batch requests can count on while others want it too.
    pub batch_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            // As many as one client of ours sends at once.
            initial_limit: 256,
            min_limit: 8,
            max_limit: 1_000,
            window_ms: 100,
            baseline_windows: 600,
            tolerance: 1.5,
            smoothing: 0.2,
            min_latency_ms: 10,
            queue_shed_start: 1.0,
            queue_max: 2.0,
            queue_target_ms: 5,
            queue_interval_ms: 100,
            critical_percent: 50,
            default_percent: 20,
            batch_percent: 5,
        }
    }
}

impl Config {
    /// Checks every value against its range.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let guaranteed = u32::from(self.critical_percent) + u32::from(self.default_percent) + u32::from(self.batch_percent);
        let rules = [
            (self.min_limit >= 1, "server.adaptive_limit.min_limit", "must be at least 1"),
            (self.max_limit >= self.min_limit, "server.adaptive_limit.max_limit", "must be at least min_limit"),
            (
                (self.min_limit..=self.max_limit).contains(&self.initial_limit),
                "server.adaptive_limit.initial_limit",
                "must be between min_limit and max_limit",
            ),
            (self.window_ms >= 1, "server.adaptive_limit.window_ms", "must be at least 1"),
            (self.baseline_windows >= 1, "server.adaptive_limit.long_windows", "must be at least 1"),
            (self.tolerance >= 1.0 && self.tolerance.is_finite(), "server.adaptive_limit.tolerance", "must be at least 1"),
            (self.smoothing > 0.0 && self.smoothing <= 1.0, "server.adaptive_limit.smoothing", "must be above 0 and at most 1"),
            (self.min_latency_ms >= 1, "server.adaptive_limit.floor_ms", "must be at least 1"),
            (self.queue_shed_start >= 0.0, "server.adaptive_limit.queue_from", "must not be negative"),
            (
                self.queue_max >= self.queue_shed_start && self.queue_max <= 100.0,
                "server.adaptive_limit.queue_to",
                "must be at least queue_from and at most 100",
            ),
            (guaranteed <= 100, "server.adaptive_limit.critical_percent", "must be at most 100 together with the others"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, key, rule)) => Err(Error::rule(key, rule)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Break = fn(&mut Config);

    #[test]
    fn the_default_is_valid_and_every_rule_names_its_key() {
        assert!(Config::default().validate().is_ok());
        let broken: [(&str, Break); 11] = [
            ("min_limit", |config| config.min_limit = 0),
            ("max_limit", |config| config.max_limit = 7),
            ("initial_limit", |config| config.initial_limit = 1_001),
            ("window_ms", |config| config.window_ms = 0),
            ("long_windows", |config| config.baseline_windows = 0),
            ("tolerance", |config| config.tolerance = f64::NAN),
            ("smoothing", |config| config.smoothing = 0.0),
            ("floor_ms", |config| config.min_latency_ms = 0),
            ("queue_from", |config| config.queue_shed_start = -1.0),
            ("queue_to", |config| config.queue_max = 0.5),
            ("critical_percent", |config| config.critical_percent = 90),
        ];
        for (key, breaks) in broken {
            let mut config = Config::default();
            breaks(&mut config);
            let text = config.validate().unwrap_err().to_string();
            assert!(text.starts_with(&format!("server.adaptive_limit.{key}:")), "{text}");
        }
    }
}

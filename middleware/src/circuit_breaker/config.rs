//! What an operator may set of a breaker.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a breaker opens, for how long, and how it closes again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the breaker may do at the start; an operator can change it while it runs.
    pub mode: Mode,
    /// Which calls are looked at.
    pub window: WindowKind,
    /// Length of a time window in milliseconds. Whatever the window, one such span of health takes back one step of back-off.
    pub window_ms: u64,
    /// Length of a count window.
    pub window_calls: u32,
    /// Below this many calls in the window nothing is decided by a rate. At most `window_calls` in a count window.
    pub min_calls: u32,
    /// Opens when this share of the calls failed, above 0 and at most 1.
    pub failure_rate: f64,
    /// A call whose answer began later than this many milliseconds is slow; 0 for no such rule.
    pub slow_call_ms: u64,
    /// Opens when this share of the calls was slow, above 0 and at most 1.
    pub slow_rate: f64,
    /// Opens at this many failures in a row whatever the rate; 0 for no such rule.
    pub consecutive_failures: u32,
    /// A timeout counts as a failure only if the call had at least this many milliseconds: an impatient caller must not open it.
    pub min_failure_timeout_ms: u64,
    /// How many milliseconds it stays open the first time; twice as long after each failed round of probes.
    pub open_ms: u64,
    /// The longest it stays open by itself, in milliseconds.
    pub max_open_ms: u64,
    /// The longest it stays open because the target asks for it, in milliseconds; 0 to heed no such wish.
    pub max_retry_after_ms: u64,
    /// How many calls are let through to find out whether the target is well again.
    pub probes: u32,
    /// Probes without an answer after this many milliseconds have failed.
    pub half_open_timeout_ms: u64,
}

/// What a breaker may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Open and close by what it sees.
    Active,
    /// Only say when it would have opened.
    MetricsOnly,
    /// Nothing.
    Disabled,
    /// Refuse every call.
    ForcedOpen,
}

/// Which calls are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Those of the last `window_ms`.
    Time,
    /// The last `window_calls`. At low traffic it holds failures of hours ago.
    Count,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Active,
            window: WindowKind::Time,
            window_ms: 10_000,
            window_calls: 100,
            min_calls: 20,
            failure_rate: 0.5,
            slow_call_ms: 0,
            slow_rate: 0.8,
            consecutive_failures: 0,
            min_failure_timeout_ms: 50,
            open_ms: 2_000,
            max_open_ms: 15_000,
            max_retry_after_ms: 60_000,
            probes: 5,
            half_open_timeout_ms: 10_000,
        }
    }
}

/// A value that makes no sense; the text begins with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(&'static str);

impl Config {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let is_ratio = |rate: f64| rate > 0.0 && rate <= 1.0;
        // Points in time are added to: what is as good as for ever must not overflow.
        let at_most_a_day = |millis: u64| millis <= 86_400_000;
        let rules = [
            (self.window_ms >= 10, "window_ms must be at least 10"),
            (at_most_a_day(self.window_ms), "window_ms must be at most a day"),
            ((1..=10_000).contains(&self.window_calls), "window_calls must be 1..10000"),
            (self.min_calls >= 1, "min_calls must be at least 1"),
            (is_ratio(self.failure_rate), "failure_rate must be above 0 and at most 1"),
            (is_ratio(self.slow_rate), "slow_rate must be above 0 and at most 1"),
            (self.open_ms >= 1, "open_ms must be at least 1"),
            (self.max_open_ms >= self.open_ms, "max_open_ms must be at least open_ms"),
            (at_most_a_day(self.max_open_ms), "max_open_ms must be at most a day"),
            (at_most_a_day(self.max_retry_after_ms), "max_hint_ms must be at most a day"),
            (self.probes >= 1, "probes must be at least 1"),
            (self.half_open_timeout_ms >= 1, "half_open_timeout_ms must be at least 1"),
            (at_most_a_day(self.half_open_timeout_ms), "half_open_timeout_ms must be at most a day"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(InvalidConfig(broken)),
            None => Ok(()),
        }
    }

    /// The calls that a rate needs to mean something.
    pub(super) fn effective_min_calls(&self) -> u32 {
        match self.window {
            WindowKind::Time => self.min_calls.max(1),
            WindowKind::Count => self.min_calls.clamp(1, self.window_calls.max(1)),
        }
    }

    /// Whether an answer that began after `delay` is slow.
    pub(super) fn is_slow(&self, delay: Duration) -> bool {
        self.slow_call_ms > 0 && delay > Duration::from_millis(self.slow_call_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Break = fn(&mut Config);

    #[test]
    fn the_default_is_valid_and_every_rule_is_enforced() {
        assert_eq!(Config::default().validate(), Ok(()));
        let broken: [(&str, Break); 14] = [
            ("window_ms", |config| config.window_ms = 0),
            ("window_ms", |config| config.window_ms = u64::MAX),
            ("window_calls", |config| config.window_calls = 0),
            ("min_calls", |config| config.min_calls = 0),
            ("failure_rate", |config| config.failure_rate = 0.0),
            ("failure_rate", |config| config.failure_rate = f64::NAN),
            ("slow_rate", |config| config.slow_rate = 1.01),
            ("open_ms", |config| config.open_ms = 0),
            ("max_open_ms", |config| config.max_open_ms = 1),
            ("max_open_ms", |config| config.max_open_ms = u64::MAX),
            ("max_hint_ms", |config| config.max_retry_after_ms = u64::MAX),
            ("probes", |config| config.probes = 0),
            ("half_open_timeout_ms", |config| config.half_open_timeout_ms = 0),
            ("half_open_timeout_ms", |config| config.half_open_timeout_ms = u64::MAX),
        ];
        for (key, breaks) in broken {
            let mut config = Config::default();
            breaks(&mut config);
            assert!(config.validate().unwrap_err().to_string().starts_with(key), "{key}");
        }
    }

    #[test]
    fn half_a_per_cent_is_a_rate() {
        assert_eq!(Config { failure_rate: 0.005, ..Config::default() }.validate(), Ok(()));
    }

    #[test]
    fn the_minimum_is_clamped_to_a_count_window_but_not_to_a_time_window() {
        let config = Config { window: WindowKind::Count, window_calls: 10, min_calls: 20, ..Config::default() };
        assert_eq!(config.effective_min_calls(), 10);
        assert_eq!(Config { window: WindowKind::Time, ..config.clone() }.effective_min_calls(), 20);
        for window in [WindowKind::Count, WindowKind::Time] {
            assert_eq!(Config { min_calls: 0, window, ..config.clone() }.effective_min_calls(), 1, "a rate of no calls is none");
        }
    }

    #[test]
    fn exactly_the_threshold_is_not_slow() {
        let config = Config { slow_call_ms: 100, ..Config::default() };
        assert!(!config.is_slow(Duration::from_millis(100)));
        assert!(config.is_slow(Duration::from_millis(101)));
        assert!(!Config::default().is_slow(Duration::from_hours(1)));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<Config>(r#"{"failure_rat": 0.1}"#).unwrap_err();
        assert!(error.to_string().contains("failure_rat"));
    }
}

//! Settings of a circuit breaker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Circuit breaker: when it opens, for how long, and how it closes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Initial mode. An operator can change it at run time through the admin port.
    pub mode: Mode,
    /// Kind of sliding window over the calls.
    pub window: WindowKind,
    /// Length of a time window, milliseconds. With either window kind, each such period without an
    /// opening reduces the backoff by one step.
    pub window_ms: u64,
    /// Length of a count window, calls.
    pub window_calls: u32,
    /// Minimum number of calls in the window before a rate can open the breaker. At most
    /// `window_calls` in a count window.
    pub min_calls: u32,
    /// Failure rate that opens the breaker, above 0 and at most 1.
    pub failure_rate: f64,
    /// Slow-call threshold, time to the response head, milliseconds. A later head makes the call
    /// slow. 0 disables.
    pub slow_call_ms: u64,
    /// Slow-call rate that opens the breaker, above 0 and at most 1.
    pub slow_rate: f64,
    /// Number of consecutive failures that opens the breaker, whatever the rate. 0 disables.
    pub consecutive_failures: u32,
    /// Minimum time that a call must have had for its timeout to count as a failure, milliseconds.
    /// Timeouts of callers with shorter deadlines do not open the breaker.
    pub min_failure_timeout_ms: u64,
    /// Open time after the first opening, milliseconds. It doubles after each failed probe round.
    pub open_ms: u64,
    /// Maximum open time, milliseconds.
    pub max_open_ms: u64,
    /// Maximum open time requested by the target (`Retry-After`, pushback), milliseconds. 0 ignores
    /// such requests.
    pub max_retry_after_ms: u64,
    /// Number of probe calls admitted while half-open.
    pub probes: u32,
    /// Probe timeout, milliseconds. Probes without a response afterwards have failed.
    pub half_open_timeout_ms: u64,
}

/// Operating mode of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Opens and closes by the recorded calls.
    Active,
    /// Admits all calls and only reports when it would have opened.
    MetricsOnly,
    /// Admits all calls and records nothing.
    Disabled,
    /// Rejects every call.
    ForcedOpen,
}

/// Kind of sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// The calls of the last `window_ms`.
    Time,
    /// The last `window_calls` calls. At low traffic it contains failures from hours ago.
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

/// Invalid setting; the text begins with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(&'static str);

impl Config {
    /// Validates every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let is_ratio = |rate: f64| rate > 0.0 && rate <= 1.0;
        // Durations are added to points in time, which must not overflow.
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
            (at_most_a_day(self.max_retry_after_ms), "max_retry_after_ms must be at most a day"),
            (self.probes >= 1, "probes must be at least 1"),
            (self.half_open_timeout_ms >= 1, "half_open_timeout_ms must be at least 1"),
            (at_most_a_day(self.half_open_timeout_ms), "half_open_timeout_ms must be at most a day"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(InvalidConfig(broken)),
            None => Ok(()),
        }
    }

    /// Returns the minimum number of calls for a rate to be significant.
    pub(super) fn effective_min_calls(&self) -> u32 {
        match self.window {
            WindowKind::Time => self.min_calls.max(1),
            WindowKind::Count => self.min_calls.clamp(1, self.window_calls.max(1)),
        }
    }

    /// Returns whether a response that began after `delay` is slow.
    pub(super) fn is_slow(&self, delay: Duration) -> bool {
        self.slow_call_ms > 0 && delay > Duration::from_millis(self.slow_call_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Break = fn(&mut Config);

    #[test]
    fn config_default_is_valid_and_rules_are_enforced() {
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
            ("max_retry_after_ms", |config| config.max_retry_after_ms = u64::MAX),
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
    fn config_accepts_fractional_percent_rate() {
        assert_eq!(Config { failure_rate: 0.005, ..Config::default() }.validate(), Ok(()));
    }

    #[test]
    fn min_calls_is_clamped_only_to_count_windows() {
        let config = Config { window: WindowKind::Count, window_calls: 10, min_calls: 20, ..Config::default() };
        assert_eq!(config.effective_min_calls(), 10);
        assert_eq!(Config { window: WindowKind::Time, ..config.clone() }.effective_min_calls(), 20);
        for window in [WindowKind::Count, WindowKind::Time] {
            assert_eq!(Config { min_calls: 0, window, ..config.clone() }.effective_min_calls(), 1, "a rate needs at least one call");
        }
    }

    #[test]
    fn call_at_slow_threshold_is_not_slow() {
        let config = Config { slow_call_ms: 100, ..Config::default() };
        assert!(!config.is_slow(Duration::from_millis(100)));
        assert!(config.is_slow(Duration::from_millis(101)));
        assert!(!Config::default().is_slow(Duration::from_hours(1)));
    }

    #[test]
    fn config_rejects_unknown_keys() {
        let error = serde_json::from_str::<Config>(r#"{"failure_rat": 0.1}"#).unwrap_err();
        assert!(error.to_string().contains("failure_rat"));
    }
}

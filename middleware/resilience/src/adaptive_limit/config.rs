//! Settings of the adaptive concurrency limit.

use serde::{Deserialize, Serialize};

use crate::setting::Invalid;

/// Adaptive concurrency limit, derived from handler latency. Requests above it wait briefly in a
/// queue or are shed.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Enables the adaptive concurrency limit.
    pub enabled: bool,
    /// Initial limit, concurrent requests, before any latency was measured. Too high costs about a
    /// second, too low costs many: the limit falls faster than it grows.
    pub initial_limit: u32,
    /// Minimum limit, concurrent requests.
    pub min_limit: u32,
    /// Maximum limit, concurrent requests.
    pub max_limit: u32,
    /// Measurement window of latency, milliseconds. A window lasts longer if requests are few or
    /// slow.
    pub window_ms: u64,
    /// Number of windows averaged into the baseline latency.
    pub baseline_windows: u32,
    /// Tolerated latency as a multiple of the baseline latency, at least 1. Higher latency counts
    /// as overload and lowers the limit.
    pub tolerance: f64,
    /// Smoothing of limit changes: the fraction of a change applied per `window_ms`, above 0 and at
    /// most 1.
    pub smoothing: f64,
    /// Minimum latency that can count as overload, milliseconds. Lower latencies never lower the
    /// limit.
    pub min_latency_ms: u64,
    /// Maximum baseline latency, milliseconds. A latency above `tolerance` times this is overload,
    /// even if a lower limit does not help: the callers are about to give up. Keep it below half of
    /// their attempt timeout.
    pub max_latency_ms: u64,
    /// Queue length at which random shedding starts, as a multiple of the limit.
    pub queue_shed_start: f64,
    /// Maximum queue length, as a multiple of the limit. Further requests are shed.
    pub queue_max: f64,
    /// CoDel target: acceptable queue wait, milliseconds. In a standing queue, requests that waited
    /// longer are shed.
    pub queue_target_ms: u64,
    /// CoDel interval, milliseconds. A queue whose wait stays above the target for this long is a
    /// standing queue.
    pub queue_interval_ms: u64,
    /// Guaranteed share of the limit for critical requests under contention, percent.
    pub critical_percent: u8,
    /// Guaranteed share of the limit for default-priority requests under contention, percent.
    pub default_percent: u8,
    /// Guaranteed share of the limit for batch requests under contention, percent.
    pub batch_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            // The maximum number of concurrent streams of one client connection
            // (`server.http2.max_streams`).
            initial_limit: 256,
            min_limit: 8,
            max_limit: 1_000,
            window_ms: 100,
            baseline_windows: 600,
            tolerance: 1.5,
            smoothing: 0.2,
            min_latency_ms: 10,
            max_latency_ms: 2_000,
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
    /// Validates every value against its range.
    pub fn validate(&self) -> Result<(), Invalid> {
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
            (self.baseline_windows >= 1, "server.adaptive_limit.baseline_windows", "must be at least 1"),
            (self.tolerance >= 1.0 && self.tolerance.is_finite(), "server.adaptive_limit.tolerance", "must be at least 1"),
            (self.smoothing > 0.0 && self.smoothing <= 1.0, "server.adaptive_limit.smoothing", "must be above 0 and at most 1"),
            (self.min_latency_ms >= 1, "server.adaptive_limit.min_latency_ms", "must be at least 1"),
            (self.max_latency_ms >= self.min_latency_ms, "server.adaptive_limit.max_latency_ms", "must be at least min_latency_ms"),
            (self.queue_shed_start >= 0.0, "server.adaptive_limit.queue_shed_start", "must not be negative"),
            (
                self.queue_max >= self.queue_shed_start && self.queue_max <= 100.0,
                "server.adaptive_limit.queue_max",
                "must be at least queue_shed_start and at most 100",
            ),
            (
                guaranteed <= 100,
                "server.adaptive_limit.critical_percent",
                "must be at most 100 in sum with default_percent and batch_percent",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, key, rule)) => Err(Invalid::new(key, rule)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Break = fn(&mut Config);

    #[test]
    fn config_rules_name_their_key() {
        assert!(Config::default().validate().is_ok());
        let broken: [(&str, Break); 12] = [
            ("min_limit", |config| config.min_limit = 0),
            ("max_limit", |config| config.max_limit = 7),
            ("initial_limit", |config| config.initial_limit = 1_001),
            ("window_ms", |config| config.window_ms = 0),
            ("baseline_windows", |config| config.baseline_windows = 0),
            ("tolerance", |config| config.tolerance = f64::NAN),
            ("smoothing", |config| config.smoothing = 0.0),
            ("min_latency_ms", |config| config.min_latency_ms = 0),
            ("max_latency_ms", |config| config.max_latency_ms = 9),
            ("queue_shed_start", |config| config.queue_shed_start = -1.0),
            ("queue_max", |config| config.queue_max = 0.5),
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

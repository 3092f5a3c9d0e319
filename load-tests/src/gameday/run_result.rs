//! Result of a game day: samples, metrics and assertions.

use std::fmt;

use palisade_tests::servers::Prometheus;

use super::sample::Sample;
use crate::reports::Assertions;

/// Samples and assertions of a scenario run.
#[derive(Debug)]
pub struct RunResult {
    samples: Vec<Sample>,
    fault: Fault,
    prometheus: Prometheus,
    assertions: Assertions,
    /// Last lines of k6's output.
    k6_output: String,
}

/// Time of the fault, Unix seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) started: f64,
    pub(super) ended: f64,
}

/// Phase of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the fault.
    Before,
    /// During the fault, after the detection grace period.
    During,
    /// After the fault and the recovery grace period.
    After,
}

/// Selected samples.
pub(super) struct Samples<'a>(Vec<&'a Sample>);

/// Grace period for detecting the fault, seconds.
const DETECTION_GRACE: f64 = 6.0;
/// Grace period for recovery, seconds.
const RECOVERY_GRACE: f64 = 12.0;

impl RunResult {
    pub(super) fn new(samples: Vec<Sample>, fault: Fault, prometheus: Prometheus, k6_output: &str) -> Self {
        let lines: Vec<_> = k6_output.lines().filter(|line| !line.contains("accepted order")).collect();
        let k6_output = lines[lines.len().saturating_sub(40)..].join("\n");
        Self { samples, fault, prometheus, assertions: Assertions::default(), k6_output }
    }

    /// Returns whether all assertions passed.
    pub fn passed(&self) -> bool {
        self.assertions.all_passed()
    }

    /// Adds an assertion.
    pub(super) fn add_assertion(&mut self, text: impl Into<String>, passed: bool, measured: impl Into<String>) {
        self.assertions.add(text, passed, measured);
    }

    /// Asserts that the fault affected some request.
    pub(super) fn assert_fault_was_visible(&mut self) {
        let samples = Samples(self.samples.iter().filter(|sample| sample.completed_at >= self.fault.started).collect());
        let (passed, measured) = (samples.with(&[503]).count() > 0, samples.summary());
        self.add_assertion("some requests are rejected with 503 during the fault", passed, measured);
    }

    /// Returns the samples of a phase whose route starts with `route`.
    pub(super) fn select(&self, phase: Phase, route: &str) -> Samples<'_> {
        let (from, to) = match phase {
            Phase::Before => (f64::MIN, self.fault.started),
            Phase::During => (self.fault.started + DETECTION_GRACE, self.fault.ended),
            Phase::After => (self.fault.ended + RECOVERY_GRACE, f64::MAX),
        };
        let of_phase = |sample: &&Sample| sample.completed_at >= from && sample.completed_at < to && sample.name.starts_with(route);
        Samples(self.samples.iter().filter(of_phase).collect())
    }

    /// Returns a latency limit for a route, seconds: `limit`, or three times the latency before
    /// the fault if that is more. Calibrates verdicts for slow machines: requests that wait for a
    /// failed service take seconds.
    pub(super) fn calibrated(&self, limit: f64, route: &str, quantile: f64) -> f64 {
        limit.max(3.0 * self.select(Phase::Before, route).quantile(quantile))
    }

    /// Seconds from the end of the fault to the last failure of these routes.
    pub(super) fn recovered_after(&self, route: &str) -> f64 {
        let failed = self.samples.iter().filter(|sample| sample.name.starts_with(route) && !(200..500).contains(&sample.status));
        failed.map(|sample| sample.completed_at - self.fault.ended).fold(0.0, f64::max)
    }

    /// Seconds from the start of the fault until a breaker of `job` for `target` opened. `None` if
    /// none did.
    pub(super) async fn breaker_open_after(&self, job: &str, target: &str) -> Option<f64> {
        let state = format!(r#"palisade_breaker_state{{job="{job}",target="{target}",scope="target"}}"#);
        let first = format!("min(min_over_time((timestamp({state} == 1))[5m:1s]))");
        self.prometheus.query(&first).await.first().map(|sample| sample.value - self.fault.started)
    }

    /// Retries of `job` to `target` during the fault, and the number of its calls.
    pub(super) async fn retries_and_calls(&self, job: &str, target: &str) -> (f64, f64) {
        let grown = async |series: String| {
            let at = async |time: f64| {
                let samples = self.prometheus.query(&format!("sum({series} @ {time:.3})")).await;
                samples.first().map_or(0.0, |sample| sample.value)
            };
            at(self.fault.ended).await - at(self.fault.started).await
        };
        let retries = format!(r#"grpc_client_attempt_started_total{{job="{job}",grpc_target="{target}",grpc_attempt_type="retry"}}"#);
        let calls = format!(r#"rpc_client_call_duration_seconds_count{{job="{job}",server_address="{target}"}}"#);
        (grown(retries).await, grown(calls).await)
    }

    /// Returns whether the condition of an alert was met at any time.
    pub(super) async fn alerted(&self, alert: &str) -> bool {
        let count = format!(r#"count_over_time(ALERTS{{alertname="{alert}"}}[5m])"#);
        !self.prometheus.query(&count).await.is_empty()
    }
}

impl Samples<'_> {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Selects samples with one of these statuses.
    pub(super) fn with(&self, statuses: &[u16]) -> Self {
        Self(self.0.iter().copied().filter(|sample| statuses.contains(&sample.status)).collect())
    }

    /// Returns the share of samples with one of these statuses, 0 without samples.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn share(&self, statuses: &[u16]) -> f64 {
        self.with(statuses).count() as f64 / self.count().max(1) as f64
    }

    /// Quantile of the durations, seconds.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let mut times: Vec<_> = self.0.iter().map(|sample| sample.duration).collect();
        times.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "index into the list")]
        let index = ((times.len() as f64 * quantile).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(index).copied().unwrap_or(0.0)
    }

    /// Summarizes statuses and latency.
    pub(super) fn summary(&self) -> String {
        let mut statuses: Vec<_> = self.0.iter().map(|sample| sample.status).collect();
        statuses.sort_unstable();
        let counts: Vec<_> = statuses.chunk_by(|one, other| one == other).map(|run| format!("{} × {}", run.len(), run[0])).collect();
        format!("{}; median {:.0} ms, p99 {:.0} ms", counts.join(", "), 1e3 * self.quantile(0.5), 1e3 * self.quantile(0.99))
    }
}

impl fmt::Display for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.assertions.fmt(f)?;
        if self.passed() { Ok(()) } else { write!(f, "\n```\n{}\n```\n", self.k6_output) }
    }
}

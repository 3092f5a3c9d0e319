//! Result of a game day: samples, metrics and assertions.

use std::fmt;

use palisade_tests::servers::Prometheus;

use super::{Scenario, sample::Sample};
use crate::assertions::Assertions;

/// Samples and assertions of a scenario run.
#[derive(Debug)]
pub struct RunResult {
    samples: Vec<Sample>,
    fault_started: f64,
    fault_ended: f64,
    prometheus: Prometheus,
    claims: Assertions,
    k6_output: String,
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
    pub(super) fn new(samples: Vec<Sample>, broken: f64, healed: f64, prometheus: Prometheus) -> Self {
        Self { samples, fault_started: broken, fault_ended: healed, prometheus, claims: Assertions::default(), k6_output: String::new() }
    }

    /// Renders the report in Markdown.
    pub fn report(&self, day: &Scenario) -> String {
        format!("# {}\n\n{}\n\n{self}", day.name, day.question)
    }

    /// Returns whether all assertions passed.
    pub fn passed(&self) -> bool {
        self.claims.all_passed()
    }

    /// Adds an assertion.
    pub(super) fn add_assertion(&mut self, text: impl Into<String>, holds: bool, measured: impl Into<String>) {
        self.claims.add(text, holds, measured);
    }

    /// Adds the last lines of k6's output.
    pub(super) fn add_output(&mut self, text: &str) {
        let lines: Vec<_> = text.lines().filter(|line| !line.contains("accepted order")).collect();
        self.k6_output = lines[lines.len().saturating_sub(40)..].join("\n");
    }

    /// Returns the samples of a phase whose route starts with `route`.
    pub(super) fn select(&self, phase: Phase, route: &str) -> Samples<'_> {
        let (from, to) = match phase {
            Phase::Before => (f64::MIN, self.fault_started),
            Phase::During => (self.fault_started + DETECTION_GRACE, self.fault_ended),
            Phase::After => (self.fault_ended + RECOVERY_GRACE, f64::MAX),
        };
        let of_phase = |sample: &&Sample| sample.completed_at >= from && sample.completed_at < to && sample.name.starts_with(route);
        Samples(self.samples.iter().filter(of_phase).collect())
    }

    /// Seconds from the end of the fault to the last failure of these routes.
    pub(super) fn recovered_after(&self, route: &str) -> f64 {
        let failed = self.samples.iter().filter(|sample| sample.name.starts_with(route) && !(200..500).contains(&sample.status));
        failed.map(|sample| sample.completed_at - self.fault_ended).fold(0.0, f64::max)
    }

    /// Seconds from the start of the fault until a breaker of `job` for `target` opened. `None` if
    /// none did.
    pub(super) async fn breaker_open_after(&self, job: &str, target: &str) -> Option<f64> {
        let state = format!(r#"palisade_breaker_state{{job="{job}",target="{target}",scope="target"}}"#);
        let first = format!("min(min_over_time((timestamp({state} == 1))[5m:1s]))");
        self.prometheus.query(&first).await.first().map(|sample| sample.value - self.fault_started)
    }

    /// Retries of `job` to `target` during the fault, and the number of its calls.
    pub(super) async fn retries_and_calls(&self, job: &str, target: &str) -> (f64, f64) {
        let grown = async |series: String| {
            let at = async |moment: f64| {
                let found = self.prometheus.query(&format!("sum({series} @ {moment:.3})")).await;
                found.first().map_or(0.0, |sample| sample.value)
            };
            at(self.fault_ended).await - at(self.fault_started).await
        };
        let retries = format!(r#"grpc_client_attempt_started_total{{job="{job}",grpc_target="{target}",grpc_attempt_type="retry"}}"#);
        let calls = format!(r#"rpc_client_call_duration_seconds_count{{job="{job}",server_address="{target}"}}"#);
        (grown(retries).await, grown(calls).await)
    }

    /// Returns whether the condition of an alert was met at any time.
    pub(super) async fn alerted(&self, alert: &str) -> bool {
        let seen = format!(r#"count_over_time(ALERTS{{alertname="{alert}"}}[5m])"#);
        !self.prometheus.query(&seen).await.is_empty()
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
        let place = ((times.len() as f64 * quantile).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(place).copied().unwrap_or(0.0)
    }

    /// Summarizes statuses and latency.
    pub(super) fn summary(&self) -> String {
        let mut statuses: Vec<_> = self.0.iter().map(|sample| sample.status).collect();
        statuses.sort_unstable();
        let runs = statuses.chunk_by(|one, other| one == other).map(|run| format!("{} × {}", run.len(), run[0]));
        let runs: Vec<_> = runs.collect();
        format!("{}; median {:.0} ms, p99 {:.0} ms", runs.join(", "), 1e3 * self.quantile(0.5), 1e3 * self.quantile(0.99))
    }
}

impl fmt::Display for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.claims.fmt(f)?;
        if self.k6_output.is_empty() { Ok(()) } else { write!(f, "\n```\n{}\n```\n", self.k6_output) }
    }
}

//! What happened, and whether it is what should have.

use std::fmt;

use palisade_tests::servers::Prometheus;

use super::{Scenario, sample::Sample};
use crate::assertions::Assertions;

/// A day as it went.
#[derive(Debug)]
pub struct RunResult {
    samples: Vec<Sample>,
    broken: f64,
    healed: f64,
    prometheus: Prometheus,
    claims: Assertions,
    remark: String,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// All is well.
    Before,
    /// The fault is there, and everybody has noticed: from some seconds after it began.
    During,
    /// All is well again, and everybody has noticed.
    After,
}

/// Some of the answers.
pub(super) struct Answers<'a>(Vec<&'a Sample>);

/// How long everybody may take to notice, seconds.
const DETECTION_GRACE: f64 = 6.0;
/// And to come back.
const RECOVERED: f64 = 12.0;

impl RunResult {
    pub(super) fn new(samples: Vec<Sample>, broken: f64, healed: f64, prometheus: Prometheus) -> Self {
        Self { samples, broken, healed, prometheus, claims: Assertions::default(), remark: String::new() }
    }

    /// All of it, in Markdown.
    pub fn report(&self, day: &Scenario) -> String {
        format!("# {}\n\n{}\n\n{self}", day.name, day.question)
    }

    /// Whether all of it came true.
    pub fn passed(&self) -> bool {
        self.claims.all_passed()
    }

    /// Adds something that has to be true.
    pub(super) fn claim(&mut self, text: impl Into<String>, holds: bool, measured: impl Into<String>) {
        self.claims.add(text, holds, measured);
    }

    /// Adds the words of those who took part.
    pub(super) fn remark(&mut self, text: &str) {
        let lines: Vec<_> = text.lines().filter(|line| !line.contains("accepted order")).collect();
        self.remark = lines[lines.len().saturating_sub(40)..].join("\n");
    }

    /// The answers of some routes (all that begin so) in a phase.
    pub(super) fn answers(&self, phase: Phase, route: &str) -> Answers<'_> {
        let (from, to) = match phase {
            Phase::Before => (f64::MIN, self.broken),
            Phase::During => (self.broken + DETECTION_GRACE, self.healed),
            Phase::After => (self.healed + RECOVERED, f64::MAX),
        };
        let of_phase = |sample: &&Sample| sample.at >= from && sample.at < to && sample.name.starts_with(route);
        Answers(self.samples.iter().filter(of_phase).collect())
    }

    /// Seconds from the end of the fault to the last refusal or failure of these routes.
    pub(super) fn recovered_after(&self, route: &str) -> f64 {
        let failed = self.samples.iter().filter(|sample| sample.name.starts_with(route) && !(200..500).contains(&sample.status));
        failed.map(|sample| sample.at - self.healed).fold(0.0, f64::max)
    }

    /// Seconds from the beginning of the fault until a breaker of `job` for `target` was open; `None` if none was.
    pub(super) async fn breaker_open_after(&self, job: &str, target: &str) -> Option<f64> {
        let state = format!(r#"palisade_breaker_state{{job="{job}",target="{target}",breaker="target"}}"#);
        let first = format!("min(min_over_time((timestamp({state} == 1))[5m:1s]))");
        self.prometheus.query(&first).await.first().map(|sample| sample.value - self.broken)
    }

    /// Retries of `job` at `target` while the fault was there, and the calls that it was to make.
    pub(super) async fn retries_and_calls(&self, job: &str, target: &str) -> (f64, f64) {
        let grown = async |series: String| {
            let at = async |moment: f64| {
                let found = self.prometheus.query(&format!("sum({series} @ {moment:.3})")).await;
                found.first().map_or(0.0, |sample| sample.value)
            };
            at(self.healed).await - at(self.broken).await
        };
        let retries = format!(r#"grpc_client_attempt_started_total{{job="{job}",grpc_target="{target}",grpc_attempt_type="retry"}}"#);
        let calls = format!(r#"rpc_client_call_duration_seconds_count{{job="{job}",server_address="{target}"}}"#);
        (grown(retries).await, grown(calls).await)
    }

    /// Whether the condition of an alert held at some time.
    pub(super) async fn alerted(&self, alert: &str) -> bool {
        let seen = format!(r#"count_over_time(ALERTS{{alertname="{alert}"}}[5m])"#);
        !self.prometheus.query(&seen).await.is_empty()
    }
}

impl Answers<'_> {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those with one of these statuses.
    pub(super) fn with(&self, statuses: &[u16]) -> Self {
        Self(self.0.iter().copied().filter(|sample| statuses.contains(&sample.status)).collect())
    }

    /// The share with one of these statuses; of none it is none.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn share(&self, statuses: &[u16]) -> f64 {
        self.with(statuses).count() as f64 / self.count().max(1) as f64
    }

    /// The time that all but `1 - quantile` took, seconds.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let mut times: Vec<_> = self.0.iter().map(|sample| sample.took).collect();
        times.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
        let place = ((times.len() as f64 * quantile).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(place).copied().unwrap_or(0.0)
    }

    /// What they were, in words.
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
        if self.remark.is_empty() { Ok(()) } else { write!(f, "\n```\n{}\n```\n", self.remark) }
    }
}

//! Policies of a stack under test, in neutral words. A stack maps them to its own settings; a
//! policy that is missing is switched off.

use serde::Deserialize;

use super::Need;

/// Policy of a client.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientPolicy {
    /// Attempts in total. 1 disables retries.
    pub attempts: u32,
    /// First and longest backoff, with full jitter.
    pub backoff_ms: [u64; 2],
    /// Retries beyond a tenth of the calls that the retry budget allows.
    pub retry_burst: Option<u32>,
    /// Largest share of retries in flight.
    pub retries_in_flight_percent: Option<u32>,
    /// Timeout of one attempt.
    pub attempt_timeout_ms: Option<u64>,
    /// Timeout of a call with all attempts.
    pub call_timeout_ms: Option<u64>,
    /// Timeout of a connection attempt.
    pub connect_timeout_ms: u64,
    /// Calls in flight. Further ones are rejected.
    pub max_in_flight: Option<u32>,
    /// Circuit breaker of the target.
    pub breaker: Option<BreakerPolicy>,
    /// Circuit breaker of each endpoint.
    pub outlier_detection: Option<BreakerPolicy>,
    /// Largest share of ejected endpoints.
    pub max_ejected_percent: u32,
}

impl Default for ClientPolicy {
    fn default() -> Self {
        Self {
            attempts: 1,
            backoff_ms: [50, 1_000],
            retry_burst: None,
            retries_in_flight_percent: None,
            attempt_timeout_ms: None,
            call_timeout_ms: None,
            connect_timeout_ms: 1_000,
            max_in_flight: None,
            breaker: None,
            outlier_detection: None,
            max_ejected_percent: 50,
        }
    }
}

impl ClientPolicy {
    pub(super) fn needs(&self) -> impl Iterator<Item = Need> {
        let breakers = || self.breaker.iter().chain(&self.outlier_detection);
        let needs = [
            (self.attempts > 1, Need::Retry),
            (self.retry_burst.is_some() || self.retries_in_flight_percent.is_some(), Need::RetryBudget),
            (self.attempt_timeout_ms.is_some(), Need::AttemptTimeout),
            (self.call_timeout_ms.is_some(), Need::CallTimeout),
            (self.max_in_flight.is_some(), Need::Bulkhead),
            (self.breaker.is_some(), Need::Breaker),
            (self.outlier_detection.is_some(), Need::OutlierDetection),
            (breakers().any(|breaker| breaker.slow_call_ms.is_some()), Need::SlowCalls),
            (breakers().any(|breaker| breaker.consecutive_failures.is_some()), Need::ConsecutiveFailures),
        ];
        needs.into_iter().filter_map(|(holds, need)| holds.then_some(need))
    }
}

/// Policy of a circuit breaker.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerPolicy {
    /// Length of the time window.
    pub window_ms: u64,
    /// Calls needed for a rate.
    pub min_calls: u32,
    /// Share of failures that opens.
    pub failure_rate: f64,
    /// Failures in a row that open.
    pub consecutive_failures: Option<u32>,
    /// Time above which a call is slow.
    pub slow_call_ms: Option<u64>,
    /// Share of slow calls that opens.
    pub slow_rate: f64,
    /// First open time.
    pub open_ms: u64,
    /// Longest open time. Without it the open time is constant.
    pub max_open_ms: Option<u64>,
    /// Calls allowed while half-open.
    pub probes: u32,
    /// Time limit of the probes.
    pub probe_timeout_ms: u64,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            window_ms: 10_000,
            min_calls: 10,
            failure_rate: 0.5,
            consecutive_failures: None,
            slow_call_ms: None,
            slow_rate: 0.8,
            open_ms: 1_000,
            max_open_ms: None,
            probes: 1,
            probe_timeout_ms: 10_000,
        }
    }
}

/// Policy of a server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerPolicy {
    /// Requests in flight. Further ones are rejected.
    pub max_in_flight: Option<u32>,
    /// Initial, smallest and largest adaptive limit.
    pub adaptive_limit: Option<[u32; 3]>,
    /// Deadline of a request without one.
    pub default_deadline_ms: Option<u64>,
    /// Longest deadline of a request.
    pub max_deadline_ms: Option<u64>,
    /// Time for requests in flight at shutdown.
    pub drain_timeout_ms: Option<u64>,
    /// Maximum age of a connection.
    pub max_connection_age_ms: Option<u64>,
}

impl ServerPolicy {
    pub(super) fn needs(&self) -> impl Iterator<Item = Need> {
        let needs = [
            (self.max_in_flight.is_some(), Need::LoadShedding),
            (self.adaptive_limit.is_some(), Need::AdaptiveLimit),
            (self.default_deadline_ms.is_some() || self.max_deadline_ms.is_some(), Need::ServerDeadline),
            (self.drain_timeout_ms.is_some(), Need::Drain),
            (self.max_connection_age_ms.is_some(), Need::ConnectionAge),
        ];
        needs.into_iter().filter_map(|(holds, need)| holds.then_some(need))
    }
}

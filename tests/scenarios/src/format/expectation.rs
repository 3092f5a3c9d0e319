//! Expected observations.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Range;

/// Expected observations of a scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expectations {
    /// One for each group of calls.
    pub(crate) calls: Vec<ExpectedCalls>,
    /// By server; `*` is the sum of all.
    #[serde(default)]
    pub(crate) servers: BTreeMap<String, ExpectedServer>,
    /// Metrics at the end, only of a stack with the metrics of this project.
    #[serde(default)]
    pub(crate) metrics: BTreeMap<String, Range>,
    /// Time at which the server under test has stopped.
    #[serde(default)]
    pub(crate) stopped_ms: Option<Range>,
}

/// Expected results of a group of calls, as its caller sees them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExpectedCalls {
    /// Number of calls by status. `FAILED` counts all errors that are not listed; any other status
    /// that is not listed must not occur.
    pub(crate) results: BTreeMap<String, Range>,
    /// Duration of every call.
    pub(crate) elapsed_ms: Option<Range>,
    /// Time at which the last call has ended.
    pub(crate) ended_ms: Option<Range>,
    /// Status of each call, in the order of their starts.
    pub(crate) sequence: Vec<String>,
    /// `grpc-retry-pushback-ms` of every error; `some` is any value, `none` no header.
    pub(crate) pushback: Option<String>,
}

/// Expected observations of a scripted server, or of the handler under test.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExpectedServer {
    /// Received calls.
    pub(crate) received: Option<Range>,
    /// Received calls with a start in a period.
    pub(crate) periods: Vec<ExpectedPeriod>,
    /// Largest number of calls in any window.
    pub(crate) burst: Option<ExpectedBurst>,
    /// Calls that were cancelled before their answer.
    pub(crate) cancelled: Option<Range>,
    /// Calls at the same time, at most.
    pub(crate) max_concurrent: Option<Range>,
    /// Opened connections.
    pub(crate) connections: Option<Range>,
    /// `grpc-previous-rpc-attempts` of each call, 0 if it is missing.
    pub(crate) previous_attempts: Vec<u32>,
    /// Time between the starts of consecutive calls.
    pub(crate) gaps_ms: Vec<Range>,
    /// `grpc-timeout` of every call.
    pub(crate) timeout_ms: Option<Range>,
    /// `grpc-timeout` of each call.
    pub(crate) timeouts_ms: Vec<Range>,
}

/// Expected number of calls in a period.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedPeriod {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    pub(crate) received: Range,
}

/// Expected number of calls in the busiest window from a time on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedBurst {
    pub(crate) from_ms: u64,
    pub(crate) window_ms: u64,
    pub(crate) received: Range,
}

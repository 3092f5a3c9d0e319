//! Scripted behavior of a server or handler.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Answers of a server, in the order of its calls.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Script {
    /// The current step answers until it is used up; the last one answers all further calls.
    /// Without steps every call succeeds.
    pub(crate) steps: Vec<Step>,
    /// The steps start over after the last one.
    pub(crate) repeat: bool,
    /// Times without a server.
    pub(crate) unreachable: Vec<Unreachable>,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub(crate) max_streams: Option<u32>,
}

/// A time without a server: open connections break at its start.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unreachable {
    #[serde(default)]
    pub(crate) from_ms: u64,
    /// Forever, if it is missing.
    pub(crate) until_ms: Option<u64>,
    /// Connections are accepted but stay silent, instead of being refused.
    #[serde(default)]
    pub(crate) silent: bool,
}

/// Answer to some calls.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Step {
    /// Number of calls that it answers.
    pub(crate) times: Option<u32>,
    /// Time until which it answers.
    pub(crate) until_ms: Option<u64>,
    /// Delay of the answer.
    pub(crate) after_ms: u64,
    #[serde(rename = "do")]
    pub(crate) action: Action,
    /// gRPC status.
    pub(crate) status: Option<String>,
    /// The status comes in trailers after the response head. Without it an error is trailers-only.
    pub(crate) in_trailers: bool,
    /// Response headers of an error, such as `grpc-retry-pushback-ms`.
    pub(crate) headers: BTreeMap<String, String>,
    /// HTTP status of an answer that is not gRPC, as of a proxy.
    pub(crate) http: Option<u16>,
}

/// Kind of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Sends the response.
    #[default]
    Respond,
    /// Sends nothing.
    Hang,
    /// Sends the response head and nothing else.
    HangAfterHead,
    /// Ends the response without a status.
    Truncate,
    /// Resets the stream with `INTERNAL_ERROR`.
    Reset,
    /// Resets the stream with `REFUSED_STREAM`: the request was not processed.
    RefuseStream,
    /// Closes the connection.
    Close,
    /// Sends the response and GOAWAY.
    GoAway,
    /// The handler panics. Only in a server under test.
    Panic,
}

//! Format of a scenario file; [docs/scenarios.md] describes it for authors.
//!
//! [docs/scenarios.md]: ../../../docs/scenarios.md

mod expectation;
mod policy;
mod range;
mod script;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Deserialize;

pub use policy::{BreakerPolicy, ClientPolicy, ServerPolicy};
pub(crate) use {
    expectation::{Expectations, ExpectedCalls, ExpectedServer},
    range::Range,
    script::{Action, Script, Step, Unreachable},
};

/// The groups, in the order of the table. Each is a folder of scenarios.
pub const GROUPS: [&str; 6] = ["breaker", "retry", "deadline", "overload", "balancing", "shutdown"];

/// One scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Group and file name, such as `retry/backoff_doubles`.
    #[serde(skip)]
    pub name: String,
    /// The shown rule, in one sentence.
    pub shows: String,
    /// Origin of the rule: a specification, or a library or book that has it.
    pub source: String,
    /// Techniques under test that do not follow from the policies.
    #[serde(default)]
    needs: Vec<Need>,
    /// Scripted servers that the client under test calls.
    #[serde(default)]
    pub(crate) servers: BTreeMap<String, Script>,
    /// Policy of the client under test.
    #[serde(default)]
    pub(crate) client: ClientPolicy,
    /// Server under test, which receives the calls instead of the client under test.
    pub(crate) entry: Option<Entry>,
    pub(crate) calls: Vec<CallGroup>,
    #[serde(default)]
    pub(crate) events: Vec<Event>,
    pub(crate) expect: Expectations,
}

/// A server under test.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) policy: ServerPolicy,
    /// Its scripted handler.
    pub(crate) handler: Script,
    /// The handler makes a call with the client under test instead.
    pub(crate) forwards: bool,
}

/// Kind of a method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Method {
    /// Idempotent.
    #[default]
    Read,
    /// Not idempotent.
    Write,
}

impl Method {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Read => READ,
            Self::Write => WRITE,
        }
    }
}

/// Path of the idempotent method.
pub const READ: &str = "/scenario.v1.Target/Read";
/// Path of the method that is not idempotent.
pub const WRITE: &str = "/scenario.v1.Target/Write";

/// Calls of the same kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CallGroup {
    pub(crate) at_ms: u64,
    pub(crate) count: u32,
    /// Time between the starts of two calls. Without it all start together.
    pub(crate) every_ms: u64,
    /// Each call starts when the previous one has ended, `every_ms` later.
    pub(crate) sequential: bool,
    pub(crate) method: Method,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) cancel_after_ms: Option<u64>,
    /// Connection and address of the calls to a server under test.
    pub(crate) caller: u8,
    /// `grpc-previous-rpc-attempts`, to a server under test.
    pub(crate) previous_attempts: Option<u32>,
    /// `grpc-timeout` in place of `deadline_ms`, to a server under test.
    pub(crate) grpc_timeout: Option<String>,
}

impl Default for CallGroup {
    fn default() -> Self {
        Self {
            at_ms: 0,
            count: 1,
            every_ms: 0,
            sequential: false,
            method: Method::Read,
            deadline_ms: None,
            cancel_after_ms: None,
            caller: 1,
            previous_attempts: None,
            grpc_timeout: None,
        }
    }
}

/// An event beside the calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) at_ms: u64,
    /// Replaces the servers that the client under test knows. At first it knows all.
    #[serde(default)]
    pub(crate) endpoints: Option<Vec<String>>,
    /// Shuts the server under test down.
    #[serde(default)]
    pub(crate) shutdown: bool,
}

/// A technique that a stack may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Several attempts.
    Retry,
    /// Limit on the load that retries add.
    RetryBudget,
    /// Circuit breaker of the target.
    Breaker,
    /// Breaker that counts slow calls.
    SlowCalls,
    /// Breaker that counts failures in a row.
    ConsecutiveFailures,
    /// Timeout of one attempt.
    AttemptTimeout,
    /// Timeout of a call with all its attempts.
    CallTimeout,
    /// Limit on calls in flight that rejects.
    Bulkhead,
    /// Several endpoints.
    Balancing,
    /// Endpoints that join and leave.
    EndpointUpdates,
    /// Ejection of failing endpoints.
    OutlierDetection,
    /// Limit on requests in flight that rejects.
    LoadShedding,
    /// Limit that follows the latency.
    AdaptiveLimit,
    /// Shares of a limit for each caller.
    FairShare,
    /// Deadline that a server enforces.
    ServerDeadline,
    /// The deadline of a request applies to the calls of its handler.
    DeadlinePropagation,
    /// A service does not retry what its caller retries.
    NestedRetries,
    /// Graceful shutdown.
    Drain,
    /// Maximum age of connections.
    ConnectionAge,
    /// A panic of a handler fails one request.
    CatchPanic,
}

impl Scenario {
    /// Returns the group.
    pub fn group(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Returns the techniques under test.
    pub fn needs(&self) -> Vec<Need> {
        let mut needs = self.needs.clone();
        needs.extend(self.client.needs());
        needs.extend(self.entry.iter().flat_map(|entry| entry.policy.needs()));
        let derived = [
            (self.servers.len() > 1, Need::Balancing),
            (self.events.iter().any(|event| event.endpoints.is_some()), Need::EndpointUpdates),
            (self.events.iter().any(|event| event.shutdown), Need::Drain),
        ];
        needs.extend(derived.into_iter().filter_map(|(holds, need)| holds.then_some(need)));
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    fn read(group: &str, file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file)?;
        let mut scenario: Self = serde_saphyr::from_str(&text)?;
        let stem = file.file_stem().and_then(|stem| stem.to_str()).context("file name is not UTF-8")?;
        scenario.name = format!("{group}/{stem}");
        scenario.validate()?;
        Ok(scenario)
    }

    /// Rejects a scenario that checks nothing, or names a server that does not exist.
    fn validate(&self) -> anyhow::Result<()> {
        let expect = &self.expect;
        anyhow::ensure!(!self.calls.is_empty() && expect.calls.len() == self.calls.len(), "each group of calls needs its expectation");
        anyhow::ensure!(expect.calls.iter().all(|calls| !calls.results.is_empty()), "each group of calls needs its results");
        let known = |name: &String| self.servers.contains_key(name) || name == ALL || (name == ENTRY && self.entry.is_some());
        anyhow::ensure!(expect.servers.keys().all(known), "unknown server in the expectations");
        anyhow::ensure!(self.events.iter().flat_map(|event| event.endpoints.iter().flatten()).all(known), "unknown endpoint");
        anyhow::ensure!(self.entry.is_some() || !self.servers.is_empty(), "nothing to call");
        Ok(())
    }
}

/// Name of all servers together in the expectations.
pub(crate) const ALL: &str = "*";
/// Name of the server under test in the expectations.
pub(crate) const ENTRY: &str = "entry";

/// Folder of the scenarios of this workspace.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// Reads all scenarios below `folder`, sorted by group and name.
pub fn read_all(folder: &Path) -> anyhow::Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    for group in GROUPS {
        let entries = fs::read_dir(folder.join(group)).with_context(|| format!("no folder {group}"))?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
        files.sort();
        for file in files {
            let scenario = Scenario::read(group, &file).with_context(|| file.display().to_string())?;
            scenarios.push(scenario);
        }
    }
    Ok(scenarios)
}

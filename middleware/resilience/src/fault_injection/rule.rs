//! Fault rules and their validation.

use std::{collections::HashSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    method_table::Method,
    protocol::Protocol,
    rejection::{Reason, Violation, reasons},
};

/// Maximum number of rules.
const MAX_RULES: usize = 32;
/// Maximum length of a name, characters.
const MAX_NAME: usize = 64;
/// Maximum latency, milliseconds, beyond every deadline; use a hang for more.
const MAX_MS: u64 = 60_000;

/// A fault rule as written by the operator.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique name for the log.
    pub name: String,
    /// `package.Service/Method`, `VERB /route/{template}`, or a prefix of such names and `*`.
    pub method: String,
    /// Share of the requests to hit, 0 to 1.
    pub rate: f64,
    /// Fault to inject.
    pub kind: Kind,
}

/// Kind of fault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Delays the request before the handler.
    Latency {
        /// Mean delay, milliseconds.
        ms: u64,
        /// Uniform jitter in both directions, milliseconds.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// Rejects the request with the reason of this slug, over HTTP and gRPC alike.
    Error(String),
    /// Breaks the stream, or the HTTP/1 connection, without a response.
    Abort,
    /// Does not respond until the deadline or the caller ends the request.
    Hang,
}

/// A validated rule with its methods and reason looked up.
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) rule: Rule,
    pub(super) methods: Vec<&'static Method>,
    pub(super) effect: Effect,
}

/// [`Kind`] with its reason looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    Latency { wait: Duration, jitter: Duration },
    Error(&'static Reason),
    Abort,
    Hang,
}

/// Validates `rules` against `methods`, the method names of this server. Returns all violations at
/// once.
pub(super) fn compile(rules: Vec<Rule>, methods: &[(String, &'static Method)]) -> Result<Vec<CompiledRule>, Vec<Violation>> {
    if rules.len() > MAX_RULES {
        return Err(vec![Violation::new("rules", "too_many", format!("must be at most {MAX_RULES}"))]);
    }
    let (mut violations, mut names) = (Vec::new(), HashSet::new());
    let mut compiled = Vec::with_capacity(rules.len());
    for (index, rule) in rules.into_iter().enumerate() {
        let mut refuse = |field: &str, code: &'static str, message: String| {
            violations.push(Violation::new(format!("rules[{index}].{field}"), code, message));
        };
        if !(1..=MAX_NAME).contains(&rule.name.chars().count()) || rule.name.chars().any(char::is_control) {
            refuse("name", "invalid_name", format!("must be 1 to {MAX_NAME} visible characters"));
        }
        if !names.insert(rule.name.clone()) {
            refuse("name", "duplicate", "must differ from the names of earlier rules".to_owned());
        }
        if !(0.0..=1.0).contains(&rule.rate) {
            refuse("rate", "out_of_range", "must be 0 to 1".to_owned());
        }
        let matched: Vec<_> = methods.iter().filter(|(name, _)| matches_pattern(&rule.method, name)).map(|(_, method)| *method).collect();
        if matched.is_empty() {
            refuse("method", "unknown_method", "must match a method of this port other than health checks and reflection".to_owned());
        }
        match effect(&rule.kind) {
            Ok(effect) => compiled.push(CompiledRule { methods: matched, effect, rule }),
            Err((code, message)) => refuse("kind", code, message),
        }
    }
    if violations.is_empty() { Ok(compiled) } else { Err(violations) }
}

/// Returns the name of a method in rules.
pub(super) fn method_name(method: &Method, protocol: Protocol) -> String {
    match protocol {
        Protocol::Grpc => method.rpc_method().to_owned(),
        Protocol::Http => format!("{} {}", method.verb, method.path),
    }
}

fn matches_pattern(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

fn effect(kind: &Kind) -> Result<Effect, (&'static str, String)> {
    match kind {
        Kind::Abort => Ok(Effect::Abort),
        Kind::Hang => Ok(Effect::Hang),
        Kind::Latency { ms, jitter_ms } if (1..=MAX_MS).contains(ms) && jitter_ms <= ms => {
            Ok(Effect::Latency { wait: Duration::from_millis(*ms), jitter: Duration::from_millis(*jitter_ms) })
        }
        Kind::Latency { .. } => Err(("out_of_range", format!("ms must be 1 to {MAX_MS}, jitter_ms at most ms"))),
        Kind::Error(slug) => server_failures().find(|reason| reason.slug == slug).map(Effect::Error).ok_or_else(|| {
            let slugs: Vec<_> = server_failures().map(|reason| reason.slug).collect();
            ("unknown_reason", format!("error must be one of {}", slugs.join(", ")))
        }),
    }
}

/// Reasons of server failures. Client errors carry details that only a handler knows.
fn server_failures() -> impl Iterator<Item = &'static Reason> {
    reasons::ALL.iter().copied().filter(|reason| reason.http.is_server_error() || **reason == reasons::RATE_LIMITED)
}

//! What this service counts beside the hops: its cache. Every name and every word of a label stands here, once.

use metrics::{Counter, counter, gauge};
use palisade_middleware::metrics::{Metric, describe};

/// Every metric of this service's own.
pub static METRICS: &[Metric] = &[
    Metric::counter("palisade.cache.lookups", &["result"], "Reads of products, by what the cache had for them"),
    Metric::counter("palisade.cache.loads", &["outcome"], "Calls to products that fill the cache, by what became of their answer"),
    Metric::counter("palisade.cache.invalidations", &["cause"], "Times that the cache was told of a change, by who said so"),
    Metric::counter("palisade.cache.second_level", &["operation", "outcome"], "Operations of the cache that replicas share"),
    Metric::gauge("palisade.cache.entries", &[], "Answers that are kept in this process"),
    Metric::gauge("palisade.cache.bytes", &[], "What they take, bytes"),
];

/// What the cache had. `Shared` is an answer that another replica left in the second level; `Bypass` is a reader who wanted none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    Hit,
    Shared,
    Miss,
    Stale,
    Bypass,
}

/// What became of an answer of products. `Outdated` before it was there, or asked for beside another, it is given to those who wait for it and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Stored,
    Outdated,
    Failed,
}

/// Who says that something has changed: an event, a write through this gateway, or nobody, since events may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Event,
    Write,
    Missed,
}

/// What the second level is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Set,
    Forget,
}

/// What came of it. `Skipped`: it was not asked, because it has just failed or has too much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Hit,
    Miss,
    Done,
    Failed,
    Skipped,
}

const LOOKUPS: [Lookup; 5] = [Lookup::Hit, Lookup::Shared, Lookup::Miss, Lookup::Stale, Lookup::Bypass];
const LOADS: [Load; 3] = [Load::Stored, Load::Outdated, Load::Failed];
const CAUSES: [Cause; 3] = [Cause::Event, Cause::Write, Cause::Missed];
const REDIS_OPERATIONS: [(Operation, Outcome); 10] = [
    (Operation::Get, Outcome::Hit),
    (Operation::Get, Outcome::Miss),
    (Operation::Get, Outcome::Failed),
    (Operation::Get, Outcome::Skipped),
    (Operation::Set, Outcome::Done),
    (Operation::Set, Outcome::Failed),
    (Operation::Set, Outcome::Skipped),
    (Operation::Forget, Outcome::Done),
    (Operation::Forget, Outcome::Failed),
    (Operation::Forget, Outcome::Skipped),
];

/// Tells of every metric, and makes every series there can be: a rate sees no event that made its series.
pub fn register() {
    describe(METRICS);
    let counters = LOOKUPS.into_iter().map(lookups).chain(LOADS.into_iter().map(loads)).chain(CAUSES.into_iter().map(invalidations));
    for counter in counters.chain(REDIS_OPERATIONS.into_iter().map(|(operation, outcome)| redis_operations(operation, outcome))) {
        counter.increment(0);
    }
    record_size(0, 0);
}

pub(crate) fn lookups(result: Lookup) -> Counter {
    let result = match result {
        Lookup::Hit => "hit",
        Lookup::Shared => "shared",
        Lookup::Miss => "miss",
        Lookup::Stale => "stale",
        Lookup::Bypass => "bypass",
    };
    counter!("palisade.cache.lookups", "result" => result)
}

pub(crate) fn loads(outcome: Load) -> Counter {
    let outcome = match outcome {
        Load::Stored => "kept",
        Load::Outdated => "outdated",
        Load::Failed => "failed",
    };
    counter!("palisade.cache.loads", "outcome" => outcome)
}

pub(crate) fn invalidations(cause: Cause) -> Counter {
    let cause = match cause {
        Cause::Event => "event",
        Cause::Write => "write",
        Cause::Missed => "missed",
    };
    counter!("palisade.cache.invalidations", "cause" => cause)
}

pub(crate) fn redis_operations(operation: Operation, outcome: Outcome) -> Counter {
    let operation = match operation {
        Operation::Get => "get",
        Operation::Set => "set",
        Operation::Forget => "forget",
    };
    let outcome = match outcome {
        Outcome::Hit => "hit",
        Outcome::Miss => "miss",
        Outcome::Done => "done",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
    };
    counter!("palisade.cache.second_level", "operation" => operation, "outcome" => outcome)
}

/// How much is kept.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn record_size(entries: u64, bytes: u64) {
    gauge!("palisade.cache.entries").set(entries as f64);
    gauge!("palisade.cache.bytes").set(bytes as f64);
}

#[cfg(test)]
mod tests;

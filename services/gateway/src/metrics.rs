//! Metrics of the gateway: cache, requests by caller. Every metric name and label value is defined
//! here.

use http::StatusCode;
use metrics::{Counter, Histogram};
use palisade_middleware::metrics::{Metric, describe};

/// All metrics defined by the gateway.
pub static METRICS: &[Metric] = &[
    Metric::counter("palisade.cache.lookups", &["result"], "Cache lookups for reads of products, by result"),
    Metric::counter("palisade.cache.loads", &["outcome"], "Loads from products to fill the cache, by outcome"),
    Metric::counter("palisade.cache.invalidations", &["cause"], "Cache invalidations, by cause"),
    Metric::counter(
        "palisade.cache.redis.operations",
        &["operation", "outcome"],
        "Redis operations of the shared second-level cache, by operation and outcome",
    ),
    Metric::gauge("palisade.cache.entries", &[], "Cache entries in this process"),
    Metric::gauge("palisade.cache.bytes", &[], "Size of the cache entries in this process, bytes"),
    Metric::durations(
        "palisade.caller.request.duration",
        &["caller", "outcome"],
        "Duration of authenticated requests until the response head, by the issuer of the token and outcome, seconds",
    ),
];

/// Caller whose issuer is not in the configuration.
pub(crate) const OTHER_CALLER: &str = "other";

/// Outcome of a request of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    Success,
    ClientError,
    ServerError,
}

pub(crate) const CALL_OUTCOMES: [CallOutcome; 3] = [CallOutcome::Success, CallOutcome::ClientError, CallOutcome::ServerError];

impl From<StatusCode> for CallOutcome {
    fn from(status: StatusCode) -> Self {
        match status {
            status if status.is_server_error() => Self::ServerError,
            status if status.is_client_error() => Self::ClientError,
            _ => Self::Success,
        }
    }
}

/// Result of a cache lookup. `Shared`: found in Redis. `Bypass`: the request bypassed the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    Hit,
    Shared,
    Miss,
    Stale,
    Bypass,
}

/// Outcome of a load. `Outdated`: invalidated during the load, or loaded beside another load by a
/// bypassing request; returned to the waiting callers but not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Stored,
    Outdated,
    Failed,
}

/// Cause of an invalidation: an event, a write through this gateway, or a gap in the event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Event,
    Write,
    Missed,
}

/// Redis operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Set,
    Forget,
}

/// Outcome of a Redis operation. `Skipped`: not sent, during the cooldown after a failure or
/// because the queue is full.
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

/// Describes all metrics and creates every series with value 0. A rate would miss the first event
/// of a series that is created later.
pub fn register() {
    describe(METRICS);
    let counters = LOOKUPS.into_iter().map(lookups).chain(LOADS.into_iter().map(loads)).chain(CAUSES.into_iter().map(invalidations));
    for counter in counters.chain(REDIS_OPERATIONS.into_iter().map(|(operation, outcome)| redis_operations(operation, outcome))) {
        counter.increment(0);
    }
    record_size(0, 0);
    for outcome in CALL_OUTCOMES {
        // Looking up a histogram registers it.
        drop(caller_requests(OTHER_CALLER.to_owned(), outcome));
    }
}

/// Returns the durations of a caller's requests. The caller is a name of the configuration.
pub(crate) fn caller_requests(caller: String, outcome: CallOutcome) -> Histogram {
    let outcome = match outcome {
        CallOutcome::Success => "success",
        CallOutcome::ClientError => "client_error",
        CallOutcome::ServerError => "server_error",
    };
    palisade_middleware::histogram!("palisade.caller.request.duration", "caller" => caller, "outcome" => outcome)
}

pub(crate) fn lookups(result: Lookup) -> Counter {
    let result = match result {
        Lookup::Hit => "hit",
        Lookup::Shared => "shared",
        Lookup::Miss => "miss",
        Lookup::Stale => "stale",
        Lookup::Bypass => "bypass",
    };
    palisade_middleware::counter!("palisade.cache.lookups", "result" => result)
}

pub(crate) fn loads(outcome: Load) -> Counter {
    let outcome = match outcome {
        Load::Stored => "kept",
        Load::Outdated => "outdated",
        Load::Failed => "failed",
    };
    palisade_middleware::counter!("palisade.cache.loads", "outcome" => outcome)
}

pub(crate) fn invalidations(cause: Cause) -> Counter {
    let cause = match cause {
        Cause::Event => "event",
        Cause::Write => "write",
        Cause::Missed => "missed",
    };
    palisade_middleware::counter!("palisade.cache.invalidations", "cause" => cause)
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
    palisade_middleware::counter!("palisade.cache.redis.operations", "operation" => operation, "outcome" => outcome)
}

/// Records the size of the cache.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn record_size(entries: u64, bytes: u64) {
    palisade_middleware::gauge!("palisade.cache.entries").set(entries as f64);
    palisade_middleware::gauge!("palisade.cache.bytes").set(bytes as f64);
}

#[cfg(test)]
mod tests {
    use palisade_tests::metrics_recorder;

    use super::*;

    fn record_everything() {
        for result in LOOKUPS {
            lookups(result).increment(1);
        }
        for outcome in LOADS {
            loads(outcome).increment(1);
        }
        for cause in CAUSES {
            invalidations(cause).increment(1);
        }
        for (operation, outcome) in REDIS_OPERATIONS {
            redis_operations(operation, outcome).increment(1);
        }
        record_size(1, 1);
        for outcome in CALL_OUTCOMES {
            caller_requests(OTHER_CALLER.to_owned(), outcome).record(1.0);
        }
    }

    #[test]
    fn all_series_are_preregistered() {
        let metrics = METRICS.iter().map(|metric| (metric.exposed(), metric.labels));
        metrics_recorder::assert_all_preregistered(metrics, register, record_everything);
    }
}

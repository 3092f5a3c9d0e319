//! Limits on open streams, in total and per caller.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    jitter,
    rejection::{Rejection, reasons},
    respond::Protocol,
};

/// Why a stream ended: completed, client closed it, connection closed, maximum age.
pub(super) const REASONS: [&str; 4] = [COMPLETED, CLIENT_CLOSED, CONNECTION_CLOSED, MAX_AGE];
pub(super) const COMPLETED: &str = "done";
pub(super) const CLIENT_CLOSED: &str = "reader";
pub(super) const CONNECTION_CLOSED: &str = "connection";
pub(super) const MAX_AGE: &str = "age";

/// Why a stream was rejected.
const SHED_TOTAL: &str = "streams";
const SHED_PER_CALLER: &str = "streams_of_caller";

/// Retry delay of a rejected stream, jittered by half. A stream ends when its client closes it,
/// which can be at any time. The delay is long enough that none of our clients retries within one
/// call.
const RETRY_AFTER: Duration = Duration::from_secs(20);

/// Open streams of one port and their limits.
#[derive(Debug)]
pub(super) struct StreamLimits {
    protocol: &'static str,
    max_total: usize,
    max_per_caller: usize,
    open: Mutex<OpenStreams>,
}

#[derive(Debug, Default)]
struct OpenStreams {
    total: usize,
    by_caller: HashMap<Arc<str>, usize>,
}

/// Permit of one open stream, released when dropped.
#[derive(Debug)]
pub struct StreamPermit {
    limits: Arc<StreamLimits>,
    caller: Arc<str>,
}

impl StreamLimits {
    pub(super) fn new(protocol: Protocol, most: usize, most_of_one: usize) -> Arc<Self> {
        let protocol = protocol_label(protocol);
        metrics::gauge!("palisade.streams.open", "protocol" => protocol).set(0);
        // `rate()` misses the event that creates a series.
        for reason in REASONS {
            ended_counter(protocol, reason).increment(0);
        }
        shed_counter(SHED_TOTAL).increment(0);
        shed_counter(SHED_PER_CALLER).increment(0);
        Arc::new(Self { protocol, max_total: most, max_per_caller: most_of_one, open: Mutex::default() })
    }

    /// Acquires a permit for a stream of `caller`.
    pub(super) fn try_acquire(self: &Arc<Self>, caller: &str) -> Result<StreamPermit, Rejection> {
        let mut open = self.open.lock();
        let retry_after = jitter::jittered(RETRY_AFTER, 0.5, jitter::random_unit);
        if open.total >= self.max_total {
            shed_counter(SHED_TOTAL).increment(1);
            return Err(Rejection::new(&reasons::OVERLOADED, "too many open streams").with_retry_after(retry_after));
        }
        let (caller, count) = match open.by_caller.get_key_value(caller) {
            Some((caller, count)) => (caller.clone(), *count),
            None => (caller.into(), 0),
        };
        if count >= self.max_per_caller {
            shed_counter(SHED_PER_CALLER).increment(1);
            return Err(Rejection::new(&reasons::RATE_LIMITED, "too many open streams of this caller").with_retry_after(retry_after));
        }
        open.by_caller.insert(caller.clone(), count + 1);
        open.total += 1;
        drop(open);
        metrics::gauge!("palisade.streams.open", "protocol" => self.protocol).increment(1);
        Ok(StreamPermit { limits: self.clone(), caller })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.total -= 1;
        if let Some(count) = open.by_caller.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.by_caller.remove(&self.caller);
            }
        }
        drop(open);
        metrics::gauge!("palisade.streams.open", "protocol" => self.limits.protocol).decrement(1);
    }
}

/// Returns the counter of streams that ended for this reason.
pub(super) fn ended_counter(protocol: &'static str, reason: &'static str) -> metrics::Counter {
    metrics::counter!("palisade.streams.ended", "protocol" => protocol, "reason" => reason)
}

fn shed_counter(reason: &'static str) -> metrics::Counter {
    metrics::counter!("palisade.requests.shed", "reason" => reason)
}

/// Returns the protocol label.
pub(super) fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Grpc => "grpc",
    }
}

//! Stream limits: open streams in total and per caller.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Request;
use parking_lot::Mutex;

use super::Limit;
use crate::{
    context::Context,
    jitter,
    rejection::{Rejection, reasons},
    respond::Protocol,
};

/// Shed reason: the total limit is reached.
const TOTAL: &str = "streams";
/// Shed reason: the caller's limit is reached.
const PER_CALLER: &str = "streams_of_caller";

/// Wait before the next attempt, ± 50 %. Streams close at any time; the wait is longer than one
/// call of our own clients, so that they do not retry within it.
const RETRY_AFTER: Duration = Duration::from_secs(20);

/// Cap on the open streams of one port. Requests that are no streams are exempt, as are watches of
/// the health service: they have no caller and must not be blocked by readers.
#[derive(Debug, Clone)]
pub struct StreamLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    protocol: &'static str,
    max: usize,
    max_per_caller: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    per_caller: HashMap<Arc<str>, usize>,
}

/// Permit of one open stream.
#[derive(Debug)]
pub struct StreamPermit {
    shared: Arc<Shared>,
    caller: Arc<str>,
}

impl StreamLimit {
    /// Allows `max` open streams, of which `max_per_caller` belong to one caller.
    pub fn new(protocol: Protocol, max: usize, max_per_caller: usize) -> Self {
        let protocol = protocol.name();
        metrics::gauge!("palisade.streams.open", "protocol" => protocol).set(0);
        // Preregistered: `rate()` misses the first event of a new series.
        shed(TOTAL).increment(0);
        shed(PER_CALLER).increment(0);
        Self(Arc::new(Shared { protocol, max, max_per_caller, open: Mutex::default() }))
    }

    fn acquire(&self, caller: &str) -> Result<StreamPermit, Rejection> {
        let mut open = self.0.open.lock();
        let wait = jitter::jittered(RETRY_AFTER, 0.5, jitter::random_unit);
        if open.total >= self.0.max {
            shed(TOTAL).increment(1);
            return Err(Rejection::new(&reasons::OVERLOADED, "too many streams are open").with_retry_after(wait));
        }
        let (caller, count) = match open.per_caller.get_key_value(caller) {
            Some((caller, count)) => (caller.clone(), *count),
            None => (caller.into(), 0),
        };
        if count >= self.0.max_per_caller {
            shed(PER_CALLER).increment(1);
            return Err(Rejection::new(&reasons::RATE_LIMITED, "too many streams of this caller are open").with_retry_after(wait));
        }
        open.per_caller.insert(caller.clone(), count + 1);
        open.total += 1;
        drop(open);
        metrics::gauge!("palisade.streams.open", "protocol" => self.0.protocol).increment(1);
        Ok(StreamPermit { shared: self.0.clone(), caller })
    }
}

impl Limit for StreamLimit {
    type Permit = StreamPermit;

    fn try_acquire<B>(&self, request: &Request<B>) -> Result<Option<StreamPermit>, Rejection> {
        let Some(context) = Context::of(request).filter(|context| context.is_stream()) else { return Ok(None) };
        if context.method.is_some_and(|method| method.infrastructure) {
            return Ok(None);
        }
        let caller = context.principal.as_ref().map_or("", |principal| principal.subject.as_str());
        self.acquire(caller).map(Some)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock();
        open.total -= 1;
        if let Some(count) = open.per_caller.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.per_caller.remove(&self.caller);
            }
        }
        drop(open);
        metrics::gauge!("palisade.streams.open", "protocol" => self.shared.protocol).decrement(1);
    }
}

fn shed(reason: &'static str) -> metrics::Counter {
    metrics::counter!("palisade.requests.shed", "reason" => reason)
}

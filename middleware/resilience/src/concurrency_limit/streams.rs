//! Stream limits: open streams in total and per caller.

use std::{sync::Arc, time::Duration};

use http::Request;
use parking_lot::Mutex;

use super::Limit;
use crate::{
    caller::CallerKey,
    context::Context,
    fair_share::{FairShare, NoPermit},
    protocol::Protocol,
    rejection::Rejection,
};

/// Shed reason: the total limit is reached.
const TOTAL: &str = "streams";
/// Shed reason: the caller's limit or its share is reached.
const PER_CALLER: &str = "streams_of_caller";

/// Wait before the next attempt, ± 50 %. Streams close at any time; the wait is longer than one
/// call of our own clients, so that they do not retry within it.
const RETRY_AFTER: Duration = Duration::from_secs(20);

/// Cap on the open streams of one port, by caller: the verified identity, or the address of
/// anonymous callers. Requests that are no streams are exempt. Watches of the health service have
/// the same caps but are counted apart: readers must not block them.
#[derive(Debug, Clone)]
pub struct StreamLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    protocol: &'static str,
    max: usize,
    max_per_caller: usize,
    /// Streams of methods, and of infrastructure methods.
    open: [Mutex<FairShare>; 2],
}

/// Permit of one open stream.
#[derive(Debug)]
pub struct StreamPermit {
    shared: Arc<Shared>,
    infrastructure: bool,
    caller: CallerKey,
}

impl StreamLimit {
    /// Allows `max` open streams, of which `max_per_caller` belong to one caller.
    pub fn new(protocol: Protocol, max: usize, max_per_caller: usize) -> Self {
        let protocol = protocol.name();
        crate::gauge!("palisade.streams.open", "protocol" => protocol).set(0);
        // Preregistered: `rate()` misses the first event of a new series.
        shed(TOTAL).increment(0);
        shed(PER_CALLER).increment(0);
        Self(Arc::new(Shared { protocol, max, max_per_caller, open: Default::default() }))
    }

    fn acquire(&self, caller: CallerKey, infrastructure: bool) -> Result<StreamPermit, NoPermit> {
        let mut open = self.0.open[usize::from(infrastructure)].lock();
        if open.used_by(caller) >= self.0.max_per_caller {
            return Err(NoPermit::AboveShare);
        }
        open.try_acquire(caller, self.0.max)?;
        drop(open);
        let permit = StreamPermit { shared: self.0.clone(), infrastructure, caller };
        permit.count(1.0);
        Ok(permit)
    }
}

impl StreamPermit {
    /// Adds to the number of open streams. Infrastructure is not measured.
    fn count(&self, difference: f64) {
        if !self.infrastructure {
            crate::gauge!("palisade.streams.open", "protocol" => self.shared.protocol).increment(difference);
        }
    }
}

impl Limit for StreamLimit {
    type Permit = StreamPermit;

    fn try_acquire<B>(&self, request: &Request<B>) -> Result<Option<StreamPermit>, Rejection> {
        let Some(context) = Context::of(request).filter(|context| context.is_stream()) else { return Ok(None) };
        let infrastructure = context.method.is_some_and(|method| method.infrastructure);
        self.acquire(CallerKey::of_context(context), infrastructure).map(Some).map_err(|refused| {
            shed(if refused == NoPermit::Full { TOTAL } else { PER_CALLER }).increment(1);
            refused.rejection("open streams", RETRY_AFTER)
        })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.shared.open[usize::from(self.infrastructure)].lock().release(self.caller);
        self.count(-1.0);
    }
}

fn shed(reason: &'static str) -> metrics::Counter {
    crate::counter!("palisade.requests.shed", "reason" => reason)
}

//! Load shedding: hard cap on requests in flight.

use std::{fmt, sync::Arc, time::Duration};

use http::Request;

use super::Limit;
use crate::{
    context::Context,
    counter::AtomicCounter,
    jitter,
    metrics::{as_f64, register_observable_sum},
    rejection::{Rejection, reasons},
};

/// Cap on requests in flight over all connections, a bound for memory. Health checks are exempt.
#[derive(Debug, Clone)]
pub struct RequestLimit(Arc<InFlight>);

struct InFlight {
    count: AtomicCounter,
    limit: u32,
    shed: metrics::Counter,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("count", &self.count).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Permit of one request in flight.
#[derive(Debug)]
pub struct RequestPermit(Arc<InFlight>);

impl RequestLimit {
    /// Accepts at most `limit` requests at once.
    pub fn new(limit: usize) -> Self {
        metrics::gauge!("palisade.concurrency.limit", "limiter" => "hard").set(as_f64(limit));
        let shed = metrics::counter!("palisade.requests.shed", "reason" => "concurrency");
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let in_flight = Arc::new(InFlight { count: AtomicCounter::new(), limit, shed });
        let in_use = metrics::gauge!("palisade.concurrency.in_use", "limiter" => "hard");
        register_observable_sum(&in_flight, in_use, |in_flight| in_flight.count.get());
        Self(in_flight)
    }
}

impl Limit for RequestLimit {
    type Permit = RequestPermit;

    fn try_acquire<B>(&self, request: &Request<B>) -> Result<Option<RequestPermit>, Rejection> {
        // A shed health check would make a busy process look dead.
        if Context::of(request).and_then(|context| context.method).is_some_and(|method| method.infrastructure) {
            return Ok(None);
        }
        if self.0.count.try_increment(self.0.limit) {
            return Ok(Some(RequestPermit(self.0.clone())));
        }
        self.0.shed.increment(1);
        // Jitter: clients rejected together must not return together.
        let wait = jitter::jittered(Duration::from_secs(1), 0.5, jitter::random_unit);
        Err(Rejection::new(&reasons::OVERLOADED, "too many requests are in flight").with_retry_after(wait))
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.count.decrement();
    }
}

//! Bulkhead: cap on calls to one target.

use std::{sync::Arc, time::Duration};

use http::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limit;
use crate::{
    metrics::register_observable_sum,
    rejection::{Rejection, reasons},
    streams::is_stream,
};

/// Cap on calls to one target, so that a slow target does not hold every request of this process.
///
/// One permit covers all attempts of a call: a call that waits to retry still holds memory. A
/// stream holds its permit until the response head; its server limits open streams.
#[derive(Debug, Clone)]
pub struct Bulkhead {
    target: &'static str,
    permits: Arc<Semaphore>,
}

impl Bulkhead {
    /// Allows at most `limit` calls to `target` at once.
    pub fn new(target: &'static str, limit: u32) -> Self {
        metrics::gauge!("palisade.concurrency.limit", "limiter" => target).set(limit);
        // A 32-bit number of permits is below `Semaphore::MAX_PERMITS` on 64-bit platforms.
        let permits = Arc::new(Semaphore::new(limit as usize));
        let in_use = metrics::gauge!("palisade.concurrency.in_use", "limiter" => target);
        register_observable_sum(&permits, in_use, move |permits| limit - u32::try_from(permits.available_permits()).unwrap_or(limit));
        Self { target, permits }
    }
}

impl Limit for Bulkhead {
    type Permit = OwnedSemaphorePermit;

    fn try_acquire<B>(&self, _: &Request<B>) -> Result<Option<OwnedSemaphorePermit>, Rejection> {
        self.permits.clone().try_acquire_owned().map(Some).map_err(|_| {
            let rejection = Rejection::new(&reasons::OVERLOADED, format!("too many calls to {} are in flight", self.target));
            rejection.with_retry_after(Duration::from_secs(1))
        })
    }

    fn ends_with_head<B>(&self, request: &Request<B>) -> bool {
        is_stream(request)
    }
}

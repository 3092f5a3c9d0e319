//! Load shedding: hard cap on requests being processed.

use std::{fmt, sync::Arc, time::Duration};

use http::Request;

use super::{
    Limit,
    shared::{SharedLimit, SharedPermit},
};
use crate::{caller::CallerKey, context::Context, method_table::Method, rejection::Rejection};

/// Wait before the next attempt, ± 50 %.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Cap on requests being processed over all connections, a bound for memory. Callers share it
/// fairly: see [`super`]. The permit is released with the response head; place it around layers
/// that complete the response first, such as the adaptive limit. Health checks and constant
/// documents are exempt.
#[derive(Clone)]
pub struct RequestLimit {
    shared: Arc<SharedLimit>,
    shed: metrics::Counter,
}

impl fmt::Debug for RequestLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl RequestLimit {
    /// Accepts at most `limit` requests at once.
    pub fn new(limit: usize) -> Self {
        let shed = crate::counter!("palisade.requests.shed", "reason" => "concurrency");
        Self { shared: SharedLimit::new("hard", u32::try_from(limit).unwrap_or(u32::MAX)), shed }
    }
}

impl Limit for RequestLimit {
    type Permit = SharedPermit;

    fn try_acquire<B>(&self, request: &Request<B>) -> Result<Option<SharedPermit>, Rejection> {
        // A shed health check would make a busy process look dead.
        if Context::method_of(request).is_some_and(Method::is_exempt_from_limits) {
            return Ok(None);
        }
        self.shared.try_acquire(CallerKey::of(request)).map(Some).map_err(|refused| {
            self.shed.increment(1);
            refused.rejection("requests in flight", RETRY_AFTER)
        })
    }

    fn ends_with_head<B>(&self, _: &Request<B>) -> bool {
        true
    }
}

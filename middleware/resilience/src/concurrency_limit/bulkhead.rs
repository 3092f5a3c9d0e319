//! Bulkhead: cap on calls to one target.

use std::{sync::Arc, time::Duration};

use http::Request;

use super::{
    Limit,
    shared::{SharedLimit, SharedPermit},
};
use crate::{caller::CallerKey, context, rejection::Rejection, streams::is_stream};

/// Wait before the next attempt, ± 50 %.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Cap on calls to one target, so that a slow target does not hold every request of this process.
/// Callers of this process share it fairly: see [`super`].
///
/// One permit covers all attempts of a call: a call that waits to retry still holds memory. A
/// stream holds its permit until the response head; its server limits open streams.
#[derive(Debug, Clone)]
pub struct Bulkhead(Arc<SharedLimit>);

impl Bulkhead {
    /// Allows at most `limit` calls to `target` at once.
    pub fn new(target: &'static str, limit: u32) -> Self {
        Self(SharedLimit::new(target, limit))
    }
}

impl Limit for Bulkhead {
    type Permit = SharedPermit;

    fn try_acquire<B>(&self, _: &Request<B>) -> Result<Option<SharedPermit>, Rejection> {
        // The caller of this process on whose behalf the call is made, not the one in the request
        // to the target.
        let caller = context::with_current(CallerKey::of_context).unwrap_or_else(CallerKey::unknown);
        let refused = |full: crate::fair_share::NoPermit| full.rejection(&format!("calls to {} in flight", self.0.name()), RETRY_AFTER);
        self.0.try_acquire(caller).map(Some).map_err(refused)
    }

    fn ends_with_head<B>(&self, request: &Request<B>) -> bool {
        is_stream(request)
    }
}

//! Origin of a deadline between services: the header that says that the operator of the calling
//! service chose the timeout, and not its caller.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::time::Instant;

use super::CallDeadline;
use crate::context::Context;

/// Header of internal calls: `operator` if the operator of the calling service chose the timeout.
pub const DEADLINE_ORIGIN_HEADER: HeaderName = HeaderName::from_static("x-deadline-origin");

const OPERATOR: HeaderValue = HeaderValue::from_static("operator");

/// Origin of the timeout that a request brought, by the words of its caller; in the extensions of
/// the request. Trusted after authentication, and read when the timeout expires.
#[derive(Debug, Clone)]
pub(super) struct OriginClaim {
    by_operator: bool,
    /// Whether one of our own services is the caller.
    internal: Arc<AtomicBool>,
}

impl OriginClaim {
    /// Returns the claim in these headers of a request with a timeout, not trusted so far.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let by_operator = headers.get(DEADLINE_ORIGIN_HEADER).is_some_and(|origin| origin == OPERATOR);
        Self { by_operator, internal: Arc::default() }
    }

    /// Returns whether an authenticated service claims that its operator chose the timeout.
    pub(super) fn is_confirmed(&self) -> bool {
        self.by_operator && self.is_internal()
    }

    /// Returns whether an authenticated service sent the timeout. It counts the expiry itself.
    pub(super) fn is_internal(&self) -> bool {
        self.internal.load(Ordering::Relaxed)
    }
}

/// Adds the header to an attempt whose timeout the operator chose, and removes one that was copied
/// from elsewhere. Call only where an internal token is added, without which it is ignored.
pub fn announce_origin<B>(request: &mut Request<B>) {
    let chosen = request.extensions().get::<CallDeadline>().is_some_and(|deadline| deadline.0.is_evidence(Instant::now()));
    if chosen {
        request.headers_mut().insert(DEADLINE_ORIGIN_HEADER, OPERATOR);
    } else {
        request.headers_mut().remove(DEADLINE_ORIGIN_HEADER);
    }
}

/// Attributes the deadline to the operator if one of our own services says so. Call after
/// authentication.
pub fn apply_inbound_origin<B>(request: &mut Request<B>) {
    let Some(claim) = request.extensions().get::<OriginClaim>().cloned() else { return };
    let Some(context) = request.extensions_mut().get_mut::<Context>() else { return };
    if context.principal.as_ref().is_some_and(|principal| principal.actor.is_some()) {
        claim.internal.store(true, Ordering::Relaxed);
        if claim.by_operator {
            context.deadline = context.deadline.map(|limit| limit.confirmed(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{context::Principal, time_limit::TimeLimit};

    #[tokio::test(start_paused = true)]
    async fn origin_header_counts_only_from_services() {
        let now = Instant::now();
        for (actor, header, evidence) in [
            (Some("gateway"), Some("operator"), true),
            (Some("gateway"), Some("caller"), false),
            (Some("gateway"), None, false),
            (None, Some("operator"), false),
        ] {
            let mut principal = Principal::on_behalf_of("alice");
            principal.actor = actor.map(str::to_owned);
            let deadline = Some(TimeLimit::caller(now, Duration::from_secs(1), Duration::from_secs(9)));
            let mut request = Request::new(());
            request.extensions_mut().insert(Context { deadline, ..Context::background().on_behalf_of(Arc::new(principal)) });
            if let Some(header) = header {
                request.headers_mut().insert(DEADLINE_ORIGIN_HEADER, HeaderValue::from_static(header));
            }
            let claim = OriginClaim::from_headers(request.headers());
            request.extensions_mut().insert(claim.clone());
            apply_inbound_origin(&mut request);
            let limit = Context::of(&request).unwrap().deadline.unwrap();
            assert_eq!(limit.is_evidence(now), evidence, "{actor:?} {header:?}");
            assert_eq!((claim.is_confirmed(), claim.is_internal()), (evidence, actor.is_some()), "{actor:?} {header:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_operator_timeouts_are_announced() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        for (limit, announced) in [(TimeLimit::operator(now, second), true), (TimeLimit::caller(now, second, 5 * second), false)] {
            let mut request = Request::new(());
            request.headers_mut().insert(DEADLINE_ORIGIN_HEADER, HeaderValue::from_static("forged"));
            request.extensions_mut().insert(CallDeadline(limit));
            announce_origin(&mut request);
            assert_eq!(request.headers().get(DEADLINE_ORIGIN_HEADER), announced.then_some(&OPERATOR));
        }
    }
}

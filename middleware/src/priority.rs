//! Request priority under overload: defined by the method table, propagated between our own
//! services.

use http::{HeaderName, HeaderValue, Request};

use crate::context::Context;

/// Name of a [`Priority`]. Ignored from external callers, which would all send the highest.
pub const PRIORITY_HEADER: HeaderName = HeaderName::from_static("x-request-priority");

/// Request priority, highest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Failure breaks an operation in progress; shed last.
    Critical,
    /// A user waits for the response.
    #[default]
    Default,
    /// No user waits; the request will be repeated.
    Batch,
    /// The response is optional; shed first.
    BestEffort,
}

impl Priority {
    /// All priorities, highest first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Default, Self::Batch, Self::BestEffort];

    /// Returns the header value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Batch => "batch",
            Self::BestEffort => "best-effort",
        }
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| value == priority.name())
    }
}

impl From<Priority> for HeaderValue {
    fn from(priority: Priority) -> Self {
        Self::from_static(priority.name())
    }
}

/// Applies the priority header if one of our own services sent it. Call after authentication.
pub(crate) fn apply_inbound_priority<B>(request: &mut Request<B>) {
    let requested = request.headers().get(PRIORITY_HEADER).and_then(Priority::parse);
    let (Some(requested), Some(context)) = (requested, request.extensions_mut().get_mut::<Context>()) else { return };
    if context.principal.as_ref().is_some_and(|principal| principal.actor.is_some()) {
        context.priority = match context.priority {
            Priority::Default => requested,
            // Never lowers the listed priority: the caller cannot know which of our methods other
            // callers wait for.
            listed => listed.min(requested),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::Principal;

    fn effective_priority(actor: Option<&str>, listed: Priority, header: &'static str) -> Priority {
        let mut principal = Principal::on_behalf_of("alice");
        principal.actor = actor.map(str::to_owned);
        let mut context = Context::background().on_behalf_of(Arc::new(principal));
        context.priority = listed;
        let mut request = Request::builder().header(PRIORITY_HEADER, header).extension(context).body(()).unwrap();
        apply_inbound_priority(&mut request);
        Context::of(&request).unwrap().priority
    }

    #[test]
    fn priority_header_counts_only_from_services() {
        assert_eq!(effective_priority(Some("gateway"), Priority::Default, "critical"), Priority::Critical);
        assert_eq!(effective_priority(Some("gateway"), Priority::Default, "best-effort"), Priority::BestEffort);
        assert_eq!(effective_priority(Some("gateway"), Priority::Default, "Critical"), Priority::Default);
        assert_eq!(effective_priority(None, Priority::Default, "critical"), Priority::Default);
    }

    #[test]
    fn priority_header_never_lowers_listed_priority() {
        assert_eq!(effective_priority(Some("gateway"), Priority::Critical, "default"), Priority::Critical);
        assert_eq!(effective_priority(Some("gateway"), Priority::Batch, "critical"), Priority::Critical);
    }

    #[test]
    fn priority_header_of_unauthenticated_is_ignored() {
        let mut request = Request::builder().header(PRIORITY_HEADER, "critical").extension(Context::background()).body(()).unwrap();
        apply_inbound_priority(&mut request);
        assert_eq!(Context::of(&request).unwrap().priority, Priority::Default);
    }
}

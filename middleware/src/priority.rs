//! How much a request matters when there is no room for all: said by the method table, carried from hop to hop by our own services.

use http::{HeaderName, HeaderValue, Request};

use crate::context::Context;

/// The name of a [`Priority`]. From outside it means nothing: everybody's own request matters most.
pub const PRIORITY_HEADER: HeaderName = HeaderName::from_static("x-request-priority");

/// How much a request matters, the most important first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Without it something breaks that was begun: the last to be refused.
    Critical,
    /// Somebody waits for the answer.
    #[default]
    Default,
    /// Nobody waits; it will be asked again.
    Batch,
    /// Nobody minds: the first to be refused.
    BestEffort,
}

impl Priority {
    /// All of them, the most important first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Default, Self::Batch, Self::BestEffort];

    /// As the header says it.
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

/// Lets what the header says count if one of our own services says it. To be called once it is known who asks.
pub(crate) fn apply_inbound_priority<B>(request: &mut Request<B>) {
    let requested = request.headers().get(PRIORITY_HEADER).and_then(Priority::parse);
    let (Some(requested), Some(context)) = (requested, request.extensions_mut().get_mut::<Context>()) else { return };
    if context.principal.as_ref().is_some_and(|principal| principal.actor.is_some()) {
        context.priority = match context.priority {
            Priority::Default => requested,
            // Not the less important of the two: a caller cannot know which of our methods others wait for.
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
    fn only_a_service_is_believed() {
        assert_eq!(effective_priority(Some("gateway"), Priority::Default, "critical"), Priority::Critical);
        assert_eq!(effective_priority(Some("gateway"), Priority::Default, "best-effort"), Priority::BestEffort);
        assert_eq!(effective_priority(Some("gateway"), Priority::Default, "Critical"), Priority::Default);
        assert_eq!(effective_priority(None, Priority::Default, "critical"), Priority::Default);
    }

    #[test]
    fn the_table_keeps_what_is_important() {
        assert_eq!(effective_priority(Some("gateway"), Priority::Critical, "default"), Priority::Critical);
        assert_eq!(effective_priority(Some("gateway"), Priority::Batch, "critical"), Priority::Critical);
    }

    #[test]
    fn somebody_unknown_is_not_believed() {
        let mut request = Request::builder().header(PRIORITY_HEADER, "critical").extension(Context::background()).body(()).unwrap();
        apply_inbound_priority(&mut request);
        assert_eq!(Context::of(&request).unwrap().priority, Priority::Default);
    }
}

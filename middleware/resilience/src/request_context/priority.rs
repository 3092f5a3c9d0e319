//! Priority of inbound requests: accepted from internal services only.

use http::Request;

use crate::{
    context::Context,
    priority::{PRIORITY_HEADER, Priority},
};

/// Applies the priority header if one of our own services sent it. Call after authentication.
pub fn apply_inbound_priority<B>(request: &mut Request<B>) {
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
    use crate::context::Principal;

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

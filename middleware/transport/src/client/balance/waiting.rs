//! Wait for an endpoint: a call that finds none, because discovery knows none yet or all of several
//! are in connect backoff, waits for one within its deadline.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{endpoints::Shared, node::BalancedEndpoint};

/// Maximum wait for an endpoint. Short of any attempt timeout, which would count against the
/// target.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// What a call can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// Send the call.
    Usable,
    /// An endpoint may be usable at this time.
    Later(Instant),
    /// Only a change of the endpoint set can help.
    Unknown,
}

/// A single endpoint is always usable: a call fails with it at once, as with a static address.
fn outlook(nodes: &[Arc<BalancedEndpoint>], now: Instant) -> Outlook {
    match nodes {
        [] => Outlook::Unknown,
        [_] => Outlook::Usable,
        several => {
            let ends = several.iter().map(|node| node.backoff_end(now));
            ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().min()).map_or(Outlook::Usable, Outlook::Later)
        }
    }
}

/// Returns whether a call has to wait.
pub(super) fn must_wait(nodes: &[Arc<BalancedEndpoint>], now: Instant) -> bool {
    outlook(nodes, now) != Outlook::Usable
}

/// Waits until an endpoint may be usable, for a second or half of the time to the `deadline`.
pub(super) async fn wait_for_endpoint(shared: &Shared, deadline: Option<Instant>) {
    let started = Instant::now();
    let wait = deadline.map_or(MAX_WAIT, |deadline| MAX_WAIT.min(deadline.saturating_duration_since(started) / 2));
    let end = started + wait;
    loop {
        // Registered before the look, so that no change is missed.
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let now = Instant::now();
        let next = match outlook(&shared.nodes(), now) {
            Outlook::Usable => return,
            Outlook::Later(at) => at.min(end),
            Outlook::Unknown => end,
        };
        if now >= end {
            return;
        }
        tokio::select! {
            () = changed => {}
            () = sleep_until(next) => {}
        }
    }
}

//! Outbox metrics, the same in every service that has an outbox. The service adds them to its
//! metric catalogue.

use std::time::Duration;

use metrics::{Counter, Gauge};
use palisade_middleware::metrics::Metric;

/// Values of the `outcome` label.
pub const OUTCOMES: [&str; 4] = [PUBLISHED, REJECTED, UNAVAILABLE, DEAD];
pub(crate) const PUBLISHED: &str = "published";
pub(crate) const REJECTED: &str = "refused";
pub(crate) const UNAVAILABLE: &str = "unavailable";
pub(crate) const DEAD: &str = "dead";

/// Unpublished events.
pub const PENDING: Metric = Metric::gauge("palisade.outbox.pending", &[], "Unpublished events");
/// Age of the oldest unpublished event, seconds.
pub const OLDEST_AGE: Metric = Metric::seconds("palisade.outbox.oldest", &[], "Age of the oldest unpublished event");
/// Publish attempts by outcome.
pub const PUBLISH_ATTEMPTS: Metric = Metric::counter("palisade.outbox.published", &["outcome"], "Publish attempts of events, by outcome");

/// Registers all counters with value 0, because a rate would miss the first event of a series that
/// is created later, and the gauges as unknown.
pub fn register() {
    forget_backlog();
    for outcome in OUTCOMES {
        published(outcome).increment(0);
    }
}

/// Sets the gauges of the outbox.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn record_backlog(events: u64, oldest: Duration) {
    pending().set(events as f64);
    palisade_middleware::gauge!(OLDEST_AGE.name).set(oldest);
}

/// Sets the gauges of the outbox to NaN: its state is unknown, because it cannot be read or because
/// another replica reads it.
pub fn forget_backlog() {
    pending().set(f64::NAN);
    palisade_middleware::gauge!(OLDEST_AGE.name).set(f64::NAN);
}

/// Returns the counter of publish attempts with this outcome.
pub fn published(outcome: &'static str) -> Counter {
    palisade_middleware::counter!(PUBLISH_ATTEMPTS.name, "outcome" => outcome)
}

fn pending() -> Gauge {
    palisade_middleware::gauge!(PENDING.name)
}

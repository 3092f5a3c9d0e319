//! What is counted of an outbox, the same in every service that has one. Its catalogue lists what stands here.

use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use palisade_middleware::metrics::Metric;

/// What may become of an event that is handed over.
pub const OUTCOMES: [&str; 4] = [PUBLISHED, REFUSED, UNAVAILABLE, DEAD];
pub(crate) const PUBLISHED: &str = "published";
pub(crate) const REFUSED: &str = "refused";
pub(crate) const UNAVAILABLE: &str = "unavailable";
pub(crate) const DEAD: &str = "dead";

/// Events that wait.
pub const PENDING: Metric = Metric::gauge("palisade.outbox.pending", &[], "Events not published yet");
/// How long they do.
pub const OLDEST_AGE: Metric = Metric::seconds("palisade.outbox.oldest", &[], "Age of the oldest event not published yet");
/// Events that were handed over.
pub const PUBLISH_ATTEMPTS: Metric =
    Metric::counter("palisade.outbox.published", &["outcome"], "Events handed to the broker, by what became of it");

/// Makes every series there can be: a rate sees no event that made its series.
pub fn register() {
    record_backlog(0, Duration::ZERO);
    for outcome in OUTCOMES {
        published(outcome).increment(0);
    }
}

/// How an outbox stands.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn record_backlog(events: u64, oldest: Duration) {
    pending().set(events as f64);
    gauge!(OLDEST_AGE.name).set(oldest);
}

/// Events with this outcome.
pub fn published(outcome: &'static str) -> Counter {
    counter!(PUBLISH_ATTEMPTS.name, "outcome" => outcome)
}

fn pending() -> Gauge {
    gauge!(PENDING.name)
}

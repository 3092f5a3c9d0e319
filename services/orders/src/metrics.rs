//! What this service counts beside the hops: orders, their sagas, the outbox.

use palisade_middleware::metrics::Metric;

/// Every metric of this service's own.
pub static METRICS: &[Metric] = &[
    Metric::counter("palisade.orders", &["outcome"], "Orders that reached an outcome"),
    Metric::counter("palisade.idempotency.requests", &["outcome"], "Orders asked for, by what their idempotency key said"),
    Metric::counter("palisade.saga.started", &["saga"], "Sagas begun"),
    Metric::counter("palisade.saga.finished", &["saga", "outcome"], "Sagas ended"),
    Metric::durations("palisade.saga.step.duration", &["saga", "step", "outcome"], "Duration of single steps of sagas, by their answer"),
    Metric::gauge("palisade.saga.in_flight", &["saga", "state"], "Sagas under way, as the store has them"),
    Metric::seconds("palisade.saga.oldest_in_flight", &["saga"], "Age of the oldest saga under way"),
    Metric::gauge("palisade.outbox.pending", &[], "Events not published yet"),
    Metric::seconds("palisade.outbox.oldest", &[], "Age of the oldest event not published yet"),
    Metric::gauge("palisade.invariant.violations", &["check"], "What the last audit found broken; must be 0"),
];

//! What this service counts beside the hops: reservations and stock.

use palisade_middleware::metrics::Metric;

/// Every metric of this service's own.
pub static METRICS: &[Metric] = &[
    Metric::counter("palisade.stock.reservations", &["outcome"], "Reservations, by what became of them"),
    Metric::gauge("palisade.stock.units", &["state"], "Units of all products together"),
    Metric::gauge("palisade.stock.out_products", &[], "Products with nothing left to sell"),
    Metric::gauge("palisade.stock.overdue_holds", &[], "Holds past their time that were not given back yet"),
    Metric::gauge("palisade.invariant.violations", &["check"], "What the last audit found broken; must be 0"),
];

//! Counter of ledger entries.

use palisade_middleware::metrics::Metric;

use crate::stock_ledger::Kind;

/// Counter of ledger entries, by kind.
pub(crate) const STOCK_ADJUSTMENTS: Metric =
    Metric::counter("palisade.stock.adjustments", &["kind"], "Changes of the stock recorded in the ledger, by kind");

/// Creates all series at 0.
pub(crate) fn register() {
    for kind in Kind::ALL {
        record(kind, 0);
    }
}

/// Counts entries.
pub(crate) fn record(kind: Kind, entries: u64) {
    palisade_middleware::counter!(STOCK_ADJUSTMENTS.name, "kind" => kind.as_str()).increment(entries);
}

//! Rows that cannot be read: they are left out of results, counted and logged, so that they do not
//! hide the others.

use std::error::Error;

use palisade_middleware::metrics::Metric;

/// Counter of rows that cannot be read.
pub const UNREADABLE_ROWS: Metric =
    Metric::counter("palisade.store.unreadable_rows", &["collection"], "Rows left out of a result because they cannot be read");

/// Gauge of rows in quarantine.
pub const QUARANTINED_ROWS: Metric = Metric::gauge(
    "palisade.store.quarantined_rows",
    &["collection"],
    "Rows set aside because they cannot be read, until an operator repairs them",
);

/// Gauge of rows to delete.
pub const OVERDUE_ROWS: Metric = Metric::gauge(
    "palisade.store.overdue_rows",
    &["collection"],
    "Rows past their retention that are not deleted yet, counted up to 10,000",
);

/// Collections whose rows are read one by one. They are the values of a label.
#[derive(Debug, Clone, Copy)]
pub struct UnreadableRows(pub &'static [&'static str]);

impl UnreadableRows {
    /// Registers all series with value 0.
    pub fn register(self) {
        for collection in self.0 {
            count(collection).increment(0);
        }
    }

    /// Records a row that is left out of a result of `collection`.
    pub fn record(self, collection: &'static str, error: &(dyn Error + 'static)) {
        count(collection).increment(1);
        tracing::error!(collection, error, "unreadable row left out");
    }
}

fn count(collection: &'static str) -> metrics::Counter {
    palisade_middleware::counter!(UNREADABLE_ROWS.name, "collection" => collection)
}

//! Rows that cannot be read: they are left out of results, counted and logged, so that they do not
//! hide the others.

use std::error::Error;

/// Collections that rows are read from one by one.
const COLLECTIONS: &[&str] = &["products", "reservations", "news", "removed_products"];

/// Registers all series with value 0.
pub(crate) fn register() {
    for collection in COLLECTIONS {
        count(collection).increment(0);
    }
}

/// Records a row that is left out of a result of `collection`.
pub(crate) fn record(collection: &'static str, error: &(dyn Error + 'static)) {
    count(collection).increment(1);
    tracing::error!(collection, error, "unreadable row left out");
}

fn count(collection: &'static str) -> metrics::Counter {
    metrics::counter!("palisade.store.unreadable_rows", "collection" => collection)
}

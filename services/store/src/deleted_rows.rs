//! Counter of rows that were deleted after their retention.

use palisade_middleware::metrics::Metric;

/// Counter of deleted rows.
pub const DELETED_ROWS: Metric = Metric::counter("palisade.store.deleted_rows", &["collection"], "Rows deleted after their retention");

/// Collections whose rows have a retention. They are the values of a label.
#[derive(Debug, Clone, Copy)]
pub struct DeletedRows(pub &'static [&'static str]);

impl DeletedRows {
    /// Registers all series with value 0.
    pub fn register(self) {
        for collection in self.0 {
            self.record(collection, 0);
        }
    }

    /// Records deleted rows of `collection`.
    pub fn record(self, collection: &'static str, rows: u64) {
        palisade_middleware::counter!(DELETED_ROWS.name, "collection" => collection).increment(rows);
    }
}

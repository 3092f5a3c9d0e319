//! Erasure of the data of a subject. Idempotency keys, the authors of ledger entries and the
//! actors of changes name one. Products and reservations have no owner.

use palisade_middleware::auth::Subject;

use super::{database::Error, instrumented::instrumented_role};

instrumented_role! {
    /// Erasure of the data of a subject.
    pub trait ErasureStore {
        /// Deletes the idempotency keys of `subject`, of products and of adjustments, with their
        /// stored responses. Returns their number.
        async fn erase_keys(&self, subject: Subject, limit: u32) -> Result<u64, Error> = call("erase_keys", "idempotency_keys");

        /// Replaces `subject` by `pseudonym` as the author of up to `limit` entries of the stock
        /// ledger. Returns their number.
        async fn erase_authors(&self, subject: Subject, pseudonym: Subject, limit: u32) -> Result<u64, Error>
            = call("erase_authors", "stock_adjustments");

        /// Replaces `subject` by `pseudonym` as the actor in the histories of up to `limit`
        /// products. Returns the number of changed entries.
        async fn erase_actors(&self, subject: Subject, pseudonym: Subject, limit: u32) -> Result<u64, Error>
            = call("erase_actors", "products");
    }
}

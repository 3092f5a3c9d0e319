//! Erasure of the data of a subject. Only idempotency keys name one: products and reservations
//! have no owner.

use palisade_middleware::auth::Subject;

use super::{database::Error, instrumented::instrumented_role};

instrumented_role! {
    /// Erasure of the data of a subject.
    pub trait ErasureStore {
        /// Deletes the idempotency keys of `subject` with their stored responses. Returns their
        /// number.
        async fn erase_keys(&self, subject: Subject) -> Result<u64, Error> = call("erase_keys", "idempotency_keys");
    }
}

//! Erasure of a subject in MongoDB.

use async_trait::async_trait;
use mongodb::bson::doc;
use palisade_middleware::auth::Subject;

use super::MongoStore;
use crate::store::{database::Error, erasure::ErasureStore};

#[async_trait]
impl ErasureStore for MongoStore {
    /// Reads all keys: they are those of the last day, and no request needs an index by subject.
    async fn erase_keys(&self, subject: Subject) -> Result<u64, Error> {
        Ok(self.collections.keys.delete_many(doc! { "_id.subject": subject.as_str() }).await?.deleted_count)
    }
}

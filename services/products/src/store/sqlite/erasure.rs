//! Erasure of a subject in SQLite.

use async_trait::async_trait;
use palisade_middleware::auth::Subject;

use super::SqliteStore;
use crate::store::{database::Error, erasure::ErasureStore};

#[async_trait]
impl ErasureStore for SqliteStore {
    async fn erase_keys(&self, subject: Subject) -> Result<u64, Error> {
        let delete = sqlx::query("DELETE FROM idempotency_keys WHERE subject = ?").bind(subject.as_str());
        Ok(delete.execute(&mut *self.writer.acquire().await?).await?.rows_affected())
    }
}

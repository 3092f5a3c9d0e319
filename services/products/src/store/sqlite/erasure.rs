//! Erasure of a subject in SQLite.

use async_trait::async_trait;
use palisade_middleware::auth::Subject;

use super::{SqliteStore, begin};
use crate::store::{database::Error, erasure::ErasureStore};

const DELETE_KEYS: [&str; 2] = [
    "DELETE FROM idempotency_keys WHERE (subject, key) IN (SELECT subject, key FROM idempotency_keys WHERE subject = ? LIMIT ?)",
    "DELETE FROM adjustment_keys WHERE (subject, key) IN (SELECT subject, key FROM adjustment_keys WHERE subject = ? LIMIT ?)",
];
const REPLACE_AUTHORS: &str = "
    UPDATE stock_adjustments SET actor = ?2
    WHERE (product_id, sequence) IN (SELECT product_id, sequence FROM stock_adjustments WHERE actor = ?1 LIMIT ?3)";
const REPLACE_ACTORS: &str = "
    UPDATE product_changes SET actor = ?2
    WHERE actor = ?1 AND product_id IN (SELECT DISTINCT product_id FROM product_changes WHERE actor = ?1 LIMIT ?3)";

#[async_trait]
impl ErasureStore for SqliteStore {
    async fn erase_keys(&self, subject: Subject, limit: u32) -> Result<u64, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let mut deleted: u64 = 0;
        for delete in DELETE_KEYS {
            let limit = i64::from(limit) - deleted.cast_signed();
            deleted += sqlx::query(delete).bind(subject.as_str()).bind(limit).execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(deleted)
    }

    async fn erase_authors(&self, subject: Subject, pseudonym: Subject, limit: u32) -> Result<u64, Error> {
        self.replace_subject(REPLACE_AUTHORS, &subject, &pseudonym, limit).await
    }

    async fn erase_actors(&self, subject: Subject, pseudonym: Subject, limit: u32) -> Result<u64, Error> {
        self.replace_subject(REPLACE_ACTORS, &subject, &pseudonym, limit).await
    }
}

impl SqliteStore {
    async fn replace_subject(&self, replace: &'static str, subject: &Subject, pseudonym: &Subject, limit: u32) -> Result<u64, Error> {
        let replace = sqlx::query(replace).bind(subject.as_str()).bind(pseudonym.as_str()).bind(limit);
        Ok(replace.execute(&mut *self.writer.acquire().await?).await?.rows_affected())
    }
}

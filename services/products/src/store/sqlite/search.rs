//! Search in SQLite: candidates from an index of all substrings of three characters.
//!
//! A text that many products contain is found faster in the requested order, until the page is
//! full. A rare one is found by the index. A search therefore never reads the whole catalogue for
//! a text that no product contains.

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{SqliteStore, begin};
use crate::{
    product::{compose, legacy_searchable, searchable},
    store::database::Error,
};

/// Maximum number of products that the index returns for one search.
const MAX_CANDIDATES: usize = 2_000;
/// Maximum number of indexed substrings with the same beginning that one search combines.
const MAX_TERMS: usize = 200;
/// Length of an indexed substring, characters.
const TERM: usize = 3;

/// Products that may contain a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Candidates {
    /// Exactly these, by their ids in the index.
    Listed(Vec<i64>),
    /// Too many to list: the text itself is compared.
    Many(String),
}

impl Candidates {
    /// Finds the products whose search text contains the normalized `text`.
    pub(super) async fn find(db: &mut SqliteConnection, text: String) -> Result<Self, Error> {
        let terms = if text.chars().count() >= TERM { vec![text.clone()] } else { terms(db, &text).await? };
        if terms.len() > MAX_TERMS {
            return Ok(Self::Many(text));
        }
        if terms.is_empty() {
            return Ok(Self::Listed(Vec::new()));
        }
        let phrases: Vec<_> = terms.iter().map(|term| format!("\"{}\"", term.replace('"', "\"\""))).collect();
        let select = sqlx::query_scalar("SELECT rowid FROM search WHERE search MATCH ? LIMIT ?");
        let ids: Vec<i64> = select.bind(phrases.join(" OR ")).bind(limit(MAX_CANDIDATES)).fetch_all(db).await?;
        Ok(if ids.len() > MAX_CANDIDATES { Self::Many(text) } else { Self::Listed(ids) })
    }
}

/// Returns the indexed substrings that begin with a text of one or two characters.
async fn terms(db: &mut SqliteConnection, text: &str) -> Result<Vec<String>, Error> {
    let select = sqlx::query_scalar("SELECT term FROM search_terms WHERE term >= ?1 AND term < ?2 LIMIT ?3");
    Ok(select.bind(text).bind(format!("{text}\u{10ffff}")).bind(limit(MAX_TERMS)).fetch_all(db).await?)
}

/// One more than `max`, to see that there are more.
fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX - 1) + 1
}

impl SqliteStore {
    /// Computes the search text of up to `limit` products without one. Returns the last of them, or
    /// `None` if none is left.
    pub(super) async fn fold_some(&self, limit: u32) -> Result<Option<Uuid>, Error> {
        let mut db = self.writer.acquire().await?;
        let mut transaction = begin(&mut db).await?;
        let select = sqlx::query_as("SELECT id, name, description, category FROM products WHERE search_text IS NULL ORDER BY id LIMIT ?");
        let rows: Vec<(Uuid, String, String, String)> = select.bind(limit).fetch_all(&mut *transaction).await?;
        let mut last = None;
        for (id, name, description, category) in rows {
            // A changed category is a change of the representation.
            sqlx::query(
                "UPDATE products SET search_text = ?2, folded = ?3, category = ?4, version = version + (category IS NOT ?4) WHERE id = ?1",
            )
            .bind(id)
            .bind(searchable(&name, &description))
            .bind(legacy_searchable(&name, &description))
            .bind(compose(&category))
            .execute(&mut *transaction)
            .await?;
            last = Some(id);
        }
        transaction.commit().await?;
        Ok(last)
    }
}

#[cfg(test)]
mod tests;

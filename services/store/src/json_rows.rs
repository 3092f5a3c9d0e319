//! Rows as one JSON parameter, for SQLite: one statement writes all rows of a table, because each
//! statement costs two switches between threads.

use serde::Serialize;
use sqlx::SqliteConnection;

/// Encodes rows for `json_each`.
pub fn encode(rows: &[impl Serialize]) -> Result<String, serde_json::Error> {
    serde_json::to_string(rows)
}

/// Encodes bytes, for example an id, for `unhex`.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(bytes)
}

/// Runs `statement` with the rows as its only parameter.
pub async fn execute(db: &mut SqliteConnection, statement: &'static str, rows: &str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).bind(rows).execute(db).await?;
    Ok(())
}

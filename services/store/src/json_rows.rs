//! Rows as one JSON parameter, for SQLite: one statement writes all rows of a table, because each
//! statement costs two switches between threads.

use serde::Serialize;
use sqlx::SqliteConnection;

/// Encodes rows for `json_each`.
pub fn encode(rows: &[impl Serialize]) -> Result<String, serde_json::Error> {
    serde_json::to_string(rows)
}

/// Encodes bytes for `unhex`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

/// Runs `statement` with the rows as its only parameter.
pub async fn execute(db: &mut SqliteConnection, statement: &'static str, rows: &str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).bind(rows).execute(db).await?;
    Ok(())
}

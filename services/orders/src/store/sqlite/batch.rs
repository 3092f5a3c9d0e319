//! Rows of a batch as JSON parameters, with the errors of a batch.

use palisade_store::json_rows;
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::store::database::{BatchFailure, corrupt};

pub(super) use json_rows::hex;

/// Encodes rows for `json_each`.
pub(super) fn json(rows: &[impl Serialize]) -> Result<String, BatchFailure> {
    json_rows::encode(rows).map_err(|error| BatchFailure::rolled_back(corrupt(error)))
}

/// Runs `statement` with the rows as its only parameter.
pub(super) async fn execute(db: &mut SqliteConnection, statement: &'static str, rows: &str) -> Result<(), BatchFailure> {
    json_rows::execute(db, statement, rows).await.map_err(BatchFailure::from_statement)
}

//! Classification of database errors: unavailable, timeout or corrupt.

use sqlx::error::{DatabaseError, ErrorKind};

use super::Error;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database_error) if is_constraint_violation(database_error.as_ref()) => Self::Corrupt(error.to_string()),
            sqlx::Error::Database(database_error) if is_timeout(database_error.as_ref()) => Self::Timeout,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Unavailable(error.into()),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// Whether a constraint or trigger rejected the statement. Statements of this service never trigger
/// one unless there is a bug.
fn is_constraint_violation(error: &dyn DatabaseError) -> bool {
    /// Extended result code `SQLITE_CONSTRAINT_TRIGGER`.
    const SQLITE_TRIGGER: &str = "1811";
    !matches!(error.kind(), ErrorKind::Other) || error.code().as_deref() == Some(SQLITE_TRIGGER)
}

/// Codes `query_canceled` and `lock_not_available` of PostgreSQL, and `SQLITE_BUSY`.
fn is_timeout(error: &dyn DatabaseError) -> bool {
    matches!(error.code().as_deref(), Some("57014" | "55P03" | "5"))
}

/// Error for a stored value that cannot be parsed.
pub(super) fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}

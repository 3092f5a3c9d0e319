//! What a failure of the driver means: try later, too slow, or a bug.

use sqlx::error::{DatabaseError, ErrorKind};

use super::Error;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(refusal) if is_broken_rule(refusal.as_ref()) => Self::Corrupt(error.to_string()),
            sqlx::Error::Database(refusal) if is_timeout(refusal.as_ref()) => Self::Timeout,
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

/// A constraint or trigger said no: no statement of ours may come that far.
fn is_broken_rule(refusal: &dyn DatabaseError) -> bool {
    /// `SQLITE_CONSTRAINT_TRIGGER`.
    const SQLITE_TRIGGER: &str = "1811";
    !matches!(refusal.kind(), ErrorKind::Other) || refusal.code().as_deref() == Some(SQLITE_TRIGGER)
}

/// `query_canceled` and `lock_not_available` of `PostgreSQL`, and `SQLITE_BUSY`.
fn is_timeout(refusal: &dyn DatabaseError) -> bool {
    matches!(refusal.code().as_deref(), Some("57014" | "55P03" | "5"))
}

/// A text that cannot be what a column says it is.
pub(super) fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}

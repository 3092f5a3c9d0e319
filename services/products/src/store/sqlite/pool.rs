//! Connection pool with checkout metrics.

use std::sync::Arc;

use palisade_middleware::store_instrumentation::{CheckedOut, CheckoutCounter};
use sqlx::{Sqlite, SqlitePool, pool::PoolConnection};

use crate::store::Error;

/// Wraps `inner` and counts its checkouts.
#[derive(Debug)]
pub(super) struct Pool {
    inner: SqlitePool,
    checkouts: Arc<CheckoutCounter>,
}

impl Pool {
    /// Wraps a pool. Several pools may share one counter.
    pub(super) fn new(inner: SqlitePool, checkouts: Arc<CheckoutCounter>) -> Self {
        Self { inner, checkouts }
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<CheckedOut<PoolConnection<Sqlite>>, Error> {
        Ok(self.checkouts.acquire(self.inner.acquire(), |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }
}

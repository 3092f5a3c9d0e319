//! A pool of connections that counts what is taken from it.

use std::sync::Arc;

use palisade_middleware::store_instrumentation::{CheckedOut, CheckoutCounter};
use sqlx::{Sqlite, SqlitePool, pool::PoolConnection};

use crate::store::Error;

/// The way to a connection of `inner`.
#[derive(Debug)]
pub(super) struct Pool {
    inner: SqlitePool,
    checkouts: Arc<CheckoutCounter>,
}

impl Pool {
    /// Several pools may share `leases`.
    pub(super) fn new(inner: SqlitePool, checkouts: Arc<CheckoutCounter>) -> Self {
        Self { inner, checkouts }
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<CheckedOut<PoolConnection<Sqlite>>, Error> {
        Ok(self.checkouts.acquire(self.inner.acquire(), |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }
}

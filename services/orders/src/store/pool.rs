//! Connection pool with checkout metrics.

use std::sync::Arc;

use palisade_middleware::store_instrumentation::{CheckedOut, CheckoutCounter};
use sqlx::{Database, pool::PoolConnection};

use super::Error;

/// `sqlx` pool that counts its checkouts.
#[derive(Debug)]
pub(super) struct Pool<DB: Database> {
    inner: sqlx::Pool<DB>,
    checkouts: Arc<CheckoutCounter>,
}

impl<DB: Database> Pool<DB> {
    /// Wraps `inner`. Several pools may share `checkouts`.
    pub(super) fn new(inner: sqlx::Pool<DB>, checkouts: Arc<CheckoutCounter>) -> Self {
        Self { inner, checkouts }
    }

    /// Returns the inner pool for migrations, which take a whole pool.
    pub(super) fn uncounted(&self) -> &sqlx::Pool<DB> {
        &self.inner
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<CheckedOut<PoolConnection<DB>>, Error> {
        Ok(self.checkouts.acquire(self.inner.acquire(), |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }

    /// Waits for a connection that is closed after use, so that no later caller inherits its state.
    pub(super) async fn acquire_and_close(&self) -> Result<CheckedOut<PoolConnection<DB>>, Error> {
        let acquire = async {
            let mut connection = self.inner.acquire().await?;
            connection.close_on_drop();
            Ok(connection)
        };
        Ok(self.checkouts.acquire(acquire, |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }
}

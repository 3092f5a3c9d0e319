//! A pool of connections that counts what is taken from it.

use std::sync::Arc;

use palisade_middleware::store_instrumentation::{CheckedOut, CheckoutCounter};
use sqlx::{Database, pool::PoolConnection};

use super::Error;

/// The way to a connection of `inner`.
#[derive(Debug)]
pub(super) struct Pool<DB: Database> {
    inner: sqlx::Pool<DB>,
    checkouts: Arc<CheckoutCounter>,
}

impl<DB: Database> Pool<DB> {
    /// Several pools may share `leases`.
    pub(super) fn new(inner: sqlx::Pool<DB>, checkouts: Arc<CheckoutCounter>) -> Self {
        Self { inner, checkouts }
    }

    /// For migrations, which take no single connection.
    pub(super) fn uncounted(&self) -> &sqlx::Pool<DB> {
        &self.inner
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<CheckedOut<PoolConnection<DB>>, Error> {
        Ok(self.checkouts.acquire(self.inner.acquire(), |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }

    /// Waits for a connection that nobody has after the caller: it is closed then, whatever state it was left in.
    pub(super) async fn acquire_and_close(&self) -> Result<CheckedOut<PoolConnection<DB>>, Error> {
        let acquire = async {
            let mut connection = self.inner.acquire().await?;
            connection.close_on_drop();
            Ok(connection)
        };
        Ok(self.checkouts.acquire(acquire, |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }
}

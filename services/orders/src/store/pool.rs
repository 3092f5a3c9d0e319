//! A pool of connections that counts what is taken from it.

use std::sync::Arc;

use palisade_middleware::db::{Lease, Leases};
use sqlx::{Database, pool::PoolConnection};

use super::Error;

/// The way to a connection of `inner`.
#[derive(Debug)]
pub(super) struct Pool<DB: Database> {
    inner: sqlx::Pool<DB>,
    leases: Arc<Leases>,
}

impl<DB: Database> Pool<DB> {
    /// Several pools may share `leases`.
    pub(super) fn new(inner: sqlx::Pool<DB>, leases: Arc<Leases>) -> Self {
        Self { inner, leases }
    }

    /// For migrations, which take no single connection.
    pub(super) fn uncounted(&self) -> &sqlx::Pool<DB> {
        &self.inner
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<Lease<PoolConnection<DB>>, Error> {
        Ok(self.leases.take(self.inner.acquire(), |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }

    /// Waits for a connection that nobody has after the caller: it is closed then, whatever state it was left in.
    pub(super) async fn acquire_for_once(&self) -> Result<Lease<PoolConnection<DB>>, Error> {
        let acquire = async {
            let mut connection = self.inner.acquire().await?;
            connection.close_on_drop();
            Ok(connection)
        };
        Ok(self.leases.take(acquire, |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }
}

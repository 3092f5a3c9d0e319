//! A pool of connections that counts what is taken from it.

use std::sync::Arc;

use palisade_middleware::db::{Lease, Leases};
use sqlx::{Sqlite, SqlitePool, pool::PoolConnection};

use crate::store::Error;

/// The way to a connection of `inner`.
#[derive(Debug)]
pub(super) struct Pool {
    inner: SqlitePool,
    leases: Arc<Leases>,
}

impl Pool {
    /// Several pools may share `leases`.
    pub(super) fn new(inner: SqlitePool, leases: Arc<Leases>) -> Self {
        Self { inner, leases }
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<Lease<PoolConnection<Sqlite>>, Error> {
        Ok(self.leases.take(self.inner.acquire(), |error| matches!(error, sqlx::Error::PoolTimedOut)).await?)
    }
}

//! Connections of a driver that tells nothing of its pool: they are counted where they are taken.

use std::{
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use parking_lot::Mutex;

use super::Pool;

/// Counts what is taken from one pool, or from several that are one to whoever looks.
pub struct Leases {
    pool: Pool,
    /// How many connections there are.
    size: Box<dyn Fn() -> u32 + Send + Sync>,
    used: Mutex<u32>,
}

/// A connection that is used until this is dropped.
#[derive(Debug)]
pub struct Lease<C> {
    connection: C,
    leases: Arc<Leases>,
}

impl Leases {
    /// Leases of `pool`, which has `size()` connections.
    pub fn new(pool: Pool, size: impl Fn() -> u32 + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { pool, size: Box::new(size), used: Mutex::new(0) })
    }

    /// Takes the connection that `acquire` waits for. An error for which `in_vain` holds says that it waited too long.
    pub async fn take<C, E>(
        self: &Arc<Self>,
        acquire: impl Future<Output = Result<C, E>>,
        in_vain: impl FnOnce(&E) -> bool,
    ) -> Result<Lease<C>, E> {
        let waiting = self.pool.wait();
        match acquire.await {
            Ok(connection) => {
                waiting.got();
                self.count(1);
                Ok(Lease { connection, leases: self.clone() })
            }
            Err(error) => {
                if !in_vain(&error) {
                    waiting.refused();
                }
                Err(error)
            }
        }
    }

    /// Shown under the lock, or the last word might be an old one.
    fn count(&self, change: i32) {
        let mut used = self.used.lock();
        *used = used.saturating_add_signed(change);
        self.pool.count((self.size)().saturating_sub(*used), *used);
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("used", &self.used).finish_non_exhaustive()
    }
}

impl<C: Deref> Deref for Lease<C> {
    type Target = C::Target;

    fn deref(&self) -> &C::Target {
        &self.connection
    }
}

impl<C: DerefMut> DerefMut for Lease<C> {
    fn deref_mut(&mut self) -> &mut C::Target {
        &mut self.connection
    }
}

impl<C> Drop for Lease<C> {
    fn drop(&mut self) {
        self.leases.count(-1);
    }
}

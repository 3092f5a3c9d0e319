//! Connections of a driver that tells nothing of its pool: they are counted where they are taken.

use std::{
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use parking_lot::Mutex;

use super::PoolMetrics;

/// Counts what is taken from one pool, or from several that are one to whoever looks.
pub struct CheckoutCounter {
    pool: PoolMetrics,
    /// How many connections there are.
    size: Box<dyn Fn() -> u32 + Send + Sync>,
    used: Mutex<u32>,
}

/// A connection that is used until this is dropped.
#[derive(Debug)]
pub struct CheckedOut<C> {
    connection: C,
    counter: Arc<CheckoutCounter>,
}

impl CheckoutCounter {
    /// Leases of `pool`, which has `size()` connections.
    pub fn new(pool: PoolMetrics, size: impl Fn() -> u32 + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { pool, size: Box::new(size), used: Mutex::new(0) })
    }

    /// Takes the connection that `acquire` waits for. An error for which `in_vain` holds says that it waited too long.
    pub async fn acquire<C, E>(
        self: &Arc<Self>,
        acquire: impl Future<Output = Result<C, E>>,
        is_timeout: impl FnOnce(&E) -> bool,
    ) -> Result<CheckedOut<C>, E> {
        let timer = self.pool.wait();
        match acquire.await {
            Ok(connection) => {
                timer.acquired();
                self.count(1);
                Ok(CheckedOut { connection, counter: self.clone() })
            }
            Err(error) => {
                if !is_timeout(&error) {
                    timer.failed();
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

impl fmt::Debug for CheckoutCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("used", &self.used).finish_non_exhaustive()
    }
}

impl<C: Deref> Deref for CheckedOut<C> {
    type Target = C::Target;

    fn deref(&self) -> &C::Target {
        &self.connection
    }
}

impl<C: DerefMut> DerefMut for CheckedOut<C> {
    fn deref_mut(&mut self) -> &mut C::Target {
        &mut self.connection
    }
}

impl<C> Drop for CheckedOut<C> {
    fn drop(&mut self) {
        self.counter.count(-1);
    }
}

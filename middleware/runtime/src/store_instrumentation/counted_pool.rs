//! Connection counting for drivers without pool metrics.

use std::{
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use parking_lot::Mutex;

use super::PoolMetrics;

/// Counts the connections checked out of one pool, or of several pools shown as one.
pub struct CheckoutCounter {
    pool: PoolMetrics,
    /// Returns the current number of connections.
    size: Box<dyn Fn() -> u32 + Send + Sync>,
    used: Mutex<u32>,
}

/// Checked-out connection. Returned on drop.
#[derive(Debug)]
pub struct CheckedOut<C> {
    connection: C,
    counter: Arc<CheckoutCounter>,
}

impl CheckoutCounter {
    /// Creates a counter for `pool`, which has `size()` connections.
    pub fn new(pool: PoolMetrics, size: impl Fn() -> u32 + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { pool, size: Box::new(size), used: Mutex::new(0) })
    }

    /// Waits for `acquire` and counts its connection as used. `is_timeout` distinguishes timeouts
    /// from other errors.
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

    /// Updates the gauges under the lock, so that an older value cannot overwrite a newer one.
    fn count(&self, change: i32) {
        let mut used = self.used.lock();
        *used = used.saturating_add_signed(change);
        self.pool.count((self.size)().saturating_sub(*used), *used);
    }
}

impl fmt::Debug for CheckoutCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckoutCounter").field("used", &self.used).finish_non_exhaustive()
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

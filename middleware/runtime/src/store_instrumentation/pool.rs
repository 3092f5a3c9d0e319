//! Connection pool metrics (`db.client.connection.*`) for any driver.

use std::{cell::RefCell, future::Future, sync::Arc};

use metrics::{Counter, Gauge, Histogram};
use tokio::{task::futures::TaskLocalFuture, time::Instant};

/// Metrics of one pool, initially zero. Clones share them.
#[derive(Debug, Clone)]
pub struct PoolMetrics(Arc<Handles>);

/// Wait for a connection. Counts as a timeout if it is dropped before [`Self::acquired`] or
/// [`Self::failed`].
#[derive(Debug)]
pub struct AcquireTimer {
    pool: PoolMetrics,
    started: Instant,
    finished: bool,
}

#[derive(Debug)]
struct Handles {
    idle: Gauge,
    used: Gauge,
    limit: Gauge,
    pending: Gauge,
    timeouts: Counter,
    wait_time: Histogram,
}

tokio::task_local! {
    /// Waits of the current call; several if it waits concurrently.
    static ACQUIRE_TIMERS: RefCell<Vec<AcquireTimer>>;
}

/// Runs `call` with its own set of waits: those begun by [`PoolMetrics::wait_begins`] end with it.
pub(crate) fn scope_acquire_timers<F: Future>(call: F) -> TaskLocalFuture<RefCell<Vec<AcquireTimer>>, F> {
    ACQUIRE_TIMERS.scope(RefCell::default(), call)
}

impl PoolMetrics {
    /// Creates the metrics of pool `name`, which must be bounded by code, with up to `limit`
    /// connections.
    pub fn new(name: &'static str, limit: u32) -> Self {
        let pool = ("db.client.connection.pool.name", name);
        let count = |state: &'static str| metrics::gauge!("db.client.connection.count", &[pool, ("db.client.connection.state", state)]);
        let handles = Handles {
            idle: count("idle"),
            used: count("used"),
            limit: metrics::gauge!("db.client.connection.limit", &[pool]),
            pending: metrics::gauge!("db.client.connection.pending_requests", &[pool]),
            timeouts: metrics::counter!("db.client.connection.timeouts", &[pool]),
            wait_time: metrics::histogram!("db.client.connection.wait_time", &[pool]),
        };
        handles.limit.set(limit);
        Self(Arc::new(handles))
    }

    /// Sets the maximum number of connections.
    pub fn limit(&self, limit: u32) {
        self.0.limit.set(limit);
    }

    /// Sets the numbers of idle and used connections.
    pub fn count(&self, idle: u32, used: u32) {
        self.0.idle.set(idle);
        self.0.used.set(used);
    }

    /// Begins a wait for a connection.
    pub fn wait(&self) -> AcquireTimer {
        self.0.pending.increment(1.0);
        AcquireTimer { pool: self.clone(), started: Instant::now(), finished: false }
    }

    /// Begins a wait of the current [call](super::InstrumentedCalls::run). For drivers that report
    /// waits in the waiting task, but not their cancellation. Waits outside a call are not
    /// measured.
    pub fn wait_begins(&self) {
        // Fails outside a call.
        let _ = ACQUIRE_TIMERS.try_with(|waits| waits.borrow_mut().push(self.wait()));
    }

    /// Ends a wait of the current call: `acquired` a connection, or failed.
    pub fn wait_ends(&self, acquired: bool) {
        let Ok(Some(timer)) = ACQUIRE_TIMERS.try_with(|waits| waits.borrow_mut().pop()) else { return };
        if acquired { timer.acquired() } else { timer.failed() }
    }
}

impl AcquireTimer {
    /// Records the wait for an acquired connection.
    pub fn acquired(mut self) {
        self.pool.0.wait_time.record(self.started.elapsed());
        self.finished = true;
    }

    /// Ends the wait without a connection, for a reason other than a timeout.
    pub fn failed(mut self) {
        self.finished = true;
    }
}

impl Drop for AcquireTimer {
    fn drop(&mut self) {
        self.pool.0.pending.decrement(1.0);
        if !self.finished {
            self.pool.0.timeouts.increment(1);
        }
    }
}

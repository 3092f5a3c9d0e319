//! How the connections of a pool are used. The pool is the driver's; names and labels are here.

use std::{cell::RefCell, future::Future, sync::Arc};

use metrics::{Counter, Gauge, Histogram};
use tokio::{task::futures::TaskLocalFuture, time::Instant};

/// The metrics of one pool, at zero from the start. Clones share them.
#[derive(Debug, Clone)]
pub struct PoolMetrics(Arc<Handles>);

/// Somebody waits for a connection. Dropped before it [got](Self::got) one, or was [refused](Self::refused), it waited in vain.
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
    /// What the running call waits for; several things if it does several at once.
    static ACQUIRE_TIMERS: RefCell<Vec<AcquireTimer>>;
}

/// Ends with `call` what it began by [`Pool::wait_begins`].
pub(super) fn scope_acquire_timers<F: Future>(call: F) -> TaskLocalFuture<RefCell<Vec<AcquireTimer>>, F> {
    ACQUIRE_TIMERS.scope(RefCell::default(), call)
}

impl PoolMetrics {
    /// The pool `name`, bounded by code, of up to `limit` connections.
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

    /// So many connections it may have from now on.
    pub fn limit(&self, limit: u32) {
        self.0.limit.set(limit);
    }

    /// So many connections it has now.
    pub fn count(&self, idle: u32, used: u32) {
        self.0.idle.set(idle);
        self.0.used.set(used);
    }

    /// Somebody begins to wait.
    pub fn wait(&self) -> AcquireTimer {
        self.0.pending.increment(1.0);
        AcquireTimer { pool: self.clone(), started: Instant::now(), finished: false }
    }

    /// The running [call](super::Calls::run) begins to wait: for drivers that tell of waits, in the task that waits, but not of one that
    /// is dropped. What belongs to no call is not measured.
    pub fn wait_begins(&self) {
        // An error: it belongs to no call.
        let _ = ACQUIRE_TIMERS.try_with(|waits| waits.borrow_mut().push(self.wait()));
    }

    /// A wait of the running call is over; `got` a connection, or was refused one.
    pub fn wait_ends(&self, acquired: bool) {
        let Ok(Some(timer)) = ACQUIRE_TIMERS.try_with(|waits| waits.borrow_mut().pop()) else { return };
        if acquired { timer.acquired() } else { timer.failed() }
    }
}

impl AcquireTimer {
    /// It has a connection.
    pub fn acquired(mut self) {
        self.pool.0.wait_time.record(self.started.elapsed());
        self.finished = true;
    }

    /// It will not get one; not for want of time.
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

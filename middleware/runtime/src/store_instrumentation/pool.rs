//! Connection pool metrics (`db.client.connection.*`) for any driver.

use std::{cell::RefCell, future::Future, sync::Arc, time::Duration};

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

/// Facts about the current call that only its driver knows.
#[derive(Debug, Default)]
pub(crate) struct CallFacts {
    /// Waits for a connection in progress; several if the call waits concurrently.
    timers: Vec<AcquireTimer>,
    /// Total wait for connections.
    waited: Duration,
    /// Code of the error that the database reported.
    status_code: Option<String>,
}

tokio::task_local! {
    static CALL: RefCell<CallFacts>;
}

/// Runs `call` with its own facts: waits begun by [`PoolMetrics::wait_begins`] end with it.
pub(crate) fn scope_call_facts<F: Future>(call: F) -> TaskLocalFuture<RefCell<CallFacts>, F> {
    CALL.scope(RefCell::default(), call)
}

/// Notes the code of an error that the database reported to the current
/// [call](super::InstrumentedCalls::run): `db.response.status_code` of its span.
pub fn note_status_code(code: &str) {
    // Fails outside a call.
    let _ = CALL.try_with(|facts| facts.borrow_mut().status_code = Some(code.to_owned()));
}

/// Ends the waits of the current call. Returns the total wait and the code of the last error.
pub(super) fn take_facts() -> (Duration, Option<String>) {
    // Dropped timers add to the total.
    drop(CALL.try_with(|facts| std::mem::take(&mut facts.borrow_mut().timers)));
    let taken = CALL.try_with(|facts| std::mem::take(&mut *facts.borrow_mut())).unwrap_or_default();
    (taken.waited, taken.status_code)
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
        let _ = CALL.try_with(|facts| facts.borrow_mut().timers.push(self.wait()));
    }

    /// Ends a wait of the current call: `acquired` a connection, or failed.
    pub fn wait_ends(&self, acquired: bool) {
        let Ok(Some(timer)) = CALL.try_with(|facts| facts.borrow_mut().timers.pop()) else { return };
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
        let _ = CALL.try_with(|facts| facts.borrow_mut().waited += self.started.elapsed());
        if !self.finished {
            self.pool.0.timeouts.increment(1);
        }
    }
}

//! Connect backoff: exponential pause with jitter after a failed connection. Without it tonic
//! reconnects for every call.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use palisade_resilience::{
    backoff::Backoff,
    jitter::{self, RandomFn},
    planted,
};

use crate::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Time of the next connection attempt. Pure: takes `now`.
#[derive(Debug)]
struct BackoffState {
    /// Backoff after the first of consecutive failures.
    base: Duration,
    max: Duration,
    failures: u32,
    not_before: Option<Instant>,
    draw: RandomFn,
}

impl BackoffState {
    /// Returns the remaining backoff as the error, or `Ok` when an attempt is due.
    fn check(&self, now: Instant) -> Result<(), Duration> {
        match self.not_before {
            Some(at) if at > now => Err(at - now),
            Some(_) if planted!("backoff that never ends") => Err(self.max),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, now: Instant) {
        let delay = Backoff::at(self.base, self.max, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + jitter::jittered(delay, 0.2, self.draw));
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

/// Connect backoff of one connector, shared by its clones and read by the load balancer.
#[derive(Debug, Clone)]
pub(super) struct ConnectBackoff(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Avoids the lock while connections succeed.
    failing: AtomicBool,
    state: Mutex<BackoffState>,
}

impl ConnectBackoff {
    /// Starts without backoff.
    pub(super) fn new(base: Duration, max: Duration, draw: RandomFn) -> Self {
        let back_off = BackoffState { base, max, failures: 0, not_before: None, draw };
        Self(Arc::new(Shared { failing: AtomicBool::new(false), state: Mutex::new(back_off) }))
    }

    /// Whether a call that needs a new connection would fail immediately.
    pub(super) fn is_backing_off(&self, now: Instant) -> bool {
        self.0.failing.load(Ordering::Acquire) && self.0.state.lock().check(now).is_err()
    }

    /// Returns the remaining backoff as the error, or `Ok` when an attempt is due.
    pub(super) fn check(&self, now: Instant) -> Result<(), Duration> {
        self.0.state.lock().check(now)
    }

    // Both are updated under the lock, so that the flag never contradicts the state.

    pub(super) fn failed(&self, now: Instant) {
        let mut back_off = self.0.state.lock();
        back_off.failed(now);
        self.0.failing.store(true, Ordering::Release);
    }

    pub(super) fn succeeded(&self) {
        let mut back_off = self.0.state.lock();
        back_off.succeeded();
        self.0.failing.store(false, Ordering::Release);
    }
}

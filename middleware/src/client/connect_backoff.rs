//! The pause after a failed connection: tonic tries again at every call.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    jitter::{self, RandomFn},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// When the next connection may be tried: pure, takes `now`.
#[derive(Debug)]
struct BackoffState {
    /// After the first failure in a row.
    base: Duration,
    max: Duration,
    failures: u32,
    not_before: Option<Instant>,
    draw: RandomFn,
}

impl BackoffState {
    /// Whether to try now; if not, how long to wait.
    fn check(&self, now: Instant) -> Result<(), Duration> {
        match self.not_before {
            Some(at) if at > now => Err(at - now),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, now: Instant) {
        let delay = self.base.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + jitter::jittered(delay, 0.2, self.draw));
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }
}

/// The pauses of one connector, shared by its clones and by whoever would rather go elsewhere meanwhile.
#[derive(Debug, Clone)]
pub(super) struct ConnectBackoff(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Spares whoever asks the lock as long as all is well.
    failing: AtomicBool,
    state: Mutex<BackoffState>,
}

impl ConnectBackoff {
    /// None yet.
    pub(super) fn new(base: Duration, max: Duration, draw: RandomFn) -> Self {
        let back_off = BackoffState { base, max, failures: 0, not_before: None, draw };
        Self(Arc::new(Shared { failing: AtomicBool::new(false), state: Mutex::new(back_off) }))
    }

    /// Whether a call that needs a new connection would fail at once.
    pub(super) fn is_backing_off(&self, now: Instant) -> bool {
        self.0.failing.load(Ordering::Acquire) && self.0.state.lock().check(now).is_err()
    }

    /// Whether to try now; if not, how long to wait.
    pub(super) fn check(&self, now: Instant) -> Result<(), Duration> {
        self.0.state.lock().check(now)
    }

    // Both under the lock, or the flag of one could outlast the state of the other.

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

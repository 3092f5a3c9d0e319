//! State of one connection, shared by its task, its requests and the table of open connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::{sync::Notify, time::Instant};

use super::waiting_bytes::WaitingBytes;

/// Time that stands for "not": a busy connection is not idle.
const NEVER: u64 = u64::MAX;

/// Clock of a port: instants as integers, for atomics.
#[derive(Debug, Clone)]
pub(super) struct PortClock(Instant);

impl PortClock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    /// Returns the microseconds since the port was opened.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(NEVER - 1)
    }

    pub(super) fn at(&self, micros: u64) -> Instant {
        self.0 + std::time::Duration::from_micros(micros)
    }
}

/// State of one connection.
#[derive(Debug)]
pub(super) struct ConnectionState {
    clock: PortClock,
    /// Requests in flight, until the end of the response body.
    requests: AtomicUsize,
    /// Start of the idle time; [`NEVER`] while busy.
    idle_since: AtomicU64,
    /// Receipt of the first byte of an incomplete request head; [`NEVER`] without one.
    head_since: AtomicU64,
    has_request: AtomicBool,
    http1: AtomicBool,
    upgraded: AtomicBool,
    /// Whether the peer may still be sending a body that no handler reads.
    unread_body: AtomicBool,
    evicted: AtomicBool,
    io_closed: AtomicBool,
    /// Task of the connection.
    waker: AtomicWaker,
    pub(super) waiting: WaitingBytes,
    /// Notified when a connection of the port becomes idle and another waits for its place.
    port: Arc<IdleSignal>,
}

/// Signal of a full port: a connection became idle.
#[derive(Debug, Default)]
pub(super) struct IdleSignal {
    wanted: AtomicBool,
    pub(super) notify: Notify,
}

impl IdleSignal {
    /// Asks for a notification.
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }
}

impl ConnectionState {
    pub(super) fn new(clock: PortClock, waiting: WaitingBytes, port: Arc<IdleSignal>) -> Arc<Self> {
        let now = clock.now();
        Arc::new(Self {
            clock,
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(now),
            head_since: AtomicU64::new(NEVER),
            has_request: AtomicBool::new(false),
            http1: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            unread_body: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            io_closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            waiting,
            port,
        })
    }

    /// Starts a request. It is in flight until the guard is dropped.
    pub(super) fn start_request(self: &Arc<Self>, http1: bool) -> RequestGuard {
        self.has_request.store(true, Ordering::Relaxed);
        self.http1.store(http1, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.unread_body.store(false, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.idle_since.store(NEVER, Ordering::Release);
        RequestGuard(self.clone())
    }

    fn end_request(&self) {
        if self.requests.fetch_sub(1, Ordering::AcqRel) > 1 || self.upgraded.load(Ordering::Relaxed) {
            return;
        }
        self.idle_since.store(self.clock.now(), Ordering::SeqCst);
        // A request that started in between on another thread (HTTP/2) wins.
        if self.requests.load(Ordering::SeqCst) > 0 {
            self.idle_since.store(NEVER, Ordering::SeqCst);
        } else if self.port.wanted.load(Ordering::SeqCst) {
            self.port.notify.notify_one();
        }
    }

    /// Records received bytes.
    pub(super) fn received(&self) {
        if self.head_since.load(Ordering::Relaxed) == NEVER && self.requests.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.clock.now(), Ordering::Relaxed);
        }
    }

    /// Returns whether any request was received.
    pub(super) fn has_request(&self) -> bool {
        self.has_request.load(Ordering::Relaxed)
    }

    /// Returns whether the last request came over HTTP/1.
    pub(super) fn is_http1(&self) -> bool {
        self.http1.load(Ordering::Relaxed)
    }

    /// Marks the connection as upgraded to another protocol: it is never idle again.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// Returns the start of the idle time on the port's clock; `None` while busy.
    pub(super) fn idle_since(&self) -> Option<u64> {
        Some(self.idle_since.load(Ordering::SeqCst)).filter(|since| *since != NEVER)
    }

    /// Returns when the connection became idle.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.idle_since().map(|since| self.clock.at(since))
    }

    /// Returns when the first byte of an incomplete request head arrived.
    pub(super) fn head_at(&self) -> Option<Instant> {
        Some(self.head_since.load(Ordering::Relaxed)).filter(|since| *since != NEVER).map(|since| self.clock.at(since))
    }

    /// Records that a request body was dropped before its end.
    pub(super) fn body_left_unread(&self) {
        self.unread_body.store(true, Ordering::Relaxed);
    }

    /// Returns whether the peer may still be sending what is never read: a body, or the rest of a
    /// malformed head. Closing at once would reset the connection and lose the response.
    pub(super) fn should_linger(&self) -> bool {
        let is_unread = self.unread_body.load(Ordering::Relaxed) || self.head_at().is_some();
        // HTTP/2 ends a stream without the connection.
        is_unread && (self.is_http1() || !self.has_request()) && !self.is_evicted()
    }

    /// Asks the connection to close, because it is idle and another one needs its place. Returns
    /// `false` if it was asked before.
    pub(super) fn evict(&self) -> bool {
        let first = !self.evicted.swap(true, Ordering::AcqRel);
        if first {
            self.waker.wake();
        }
        first
    }

    /// Returns whether the connection was asked to close.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// Forbids lingering, for a connection that closes on the server's initiative.
    pub(super) fn never_linger(&self) {
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.unread_body.store(false, Ordering::Relaxed);
    }

    /// Wakes the task of the connection, to watch its waiting bytes.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Ready when the connection was asked to close. Must be polled by one task, which is also
    /// woken by [`Self::wake`].
    pub(super) fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_evicted() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if self.is_evicted() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Records that the I/O object was dropped.
    pub(super) fn io_closed(&self) {
        self.io_closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready when the I/O object was dropped. Must be polled by the task of the connection.
    pub(super) fn poll_io_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.io_closed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Request in flight.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<ConnectionState>);

impl RequestGuard {
    pub(super) fn connection(&self) -> &Arc<ConnectionState> {
        &self.0
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

//! CoDel queue of one priority (RFC 8289): first in, first out, and last in, first out in a
//! standing queue.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::queue::ShedReason;

/// CoDel parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodelParams {
    /// Acceptable queue wait.
    pub(super) target: Duration,
    /// Time above the target after which the queue is a standing queue.
    pub(super) interval: Duration,
}

/// Waiters in order of arrival.
///
/// In a standing queue FIFO order serves each request so late that its caller may be gone, and so
/// will every later one. LIFO order, with requests that waited too long shed, answers at least the
/// callers who can still use the response.
#[derive(Debug)]
pub(super) struct CodelQueue<T> {
    waiters: VecDeque<Waiter<T>>,
    /// Lower bound of the earliest deadline in the queue.
    next_expiry: Option<Instant>,
    first_above_time: Option<Instant>,
    standing_queue: bool,
}

#[derive(Debug)]
struct Waiter<T> {
    id: u64,
    queued_at: Instant,
    deadline: Option<Instant>,
    item: T,
}

impl<T> CodelQueue<T> {
    pub(super) fn new() -> Self {
        Self { waiters: VecDeque::new(), next_expiry: None, first_above_time: None, standing_queue: false }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Adds a waiter; `id` must increase from call to call.
    pub(super) fn push(&mut self, id: u64, deadline: Option<Instant>, item: T, now: Instant) {
        self.next_expiry = [self.next_expiry, deadline].into_iter().flatten().min();
        self.waiters.push_back(Waiter { id, queued_at: now, deadline, item });
    }

    /// Removes and returns the waiter to serve next.
    pub(super) fn pop(&mut self) -> Option<T> {
        let waiter = if self.standing_queue { self.waiters.pop_back() } else { self.waiters.pop_front() };
        waiter.map(|waiter| waiter.item)
    }

    /// Removes and returns the waiter that would be served last.
    pub(super) fn evict(&mut self) -> Option<T> {
        let waiter = if self.standing_queue { self.waiters.pop_front() } else { self.waiters.pop_back() };
        waiter.map(|waiter| waiter.item)
    }

    /// Removes a cancelled waiter, if it is still queued.
    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let index = self.waiters.binary_search_by_key(&id, |waiter| waiter.id).ok()?;
        self.waiters.remove(index).map(|waiter| waiter.item)
    }

    /// Updates the CoDel state, then moves waiters that expired or waited too long into `leaving`.
    pub(super) fn sweep(&mut self, patience: CodelParams, now: Instant, leaving: &mut Vec<(T, ShedReason)>) {
        self.update_codel(patience, now);
        if self.next_expiry.is_some_and(|expiry| expiry <= now) {
            let has_expired = |waiter: &Waiter<T>| waiter.deadline.is_some_and(|deadline| deadline <= now);
            let (expired, waiting): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiters).into_iter().partition(has_expired);
            leaving.extend(expired.into_iter().map(|waiter| (waiter.item, ShedReason::Expired)));
            self.waiters = waiting;
            self.next_expiry = self.waiters.iter().filter_map(|waiter| waiter.deadline).min();
        }
        while self.standing_queue
            && self.waiters.front().is_some_and(|oldest| now.saturating_duration_since(oldest.queued_at) > patience.target)
            && let Some(oldest) = self.waiters.pop_front()
        {
            leaving.push((oldest.item, ShedReason::WaitTooLong));
        }
    }

    fn update_codel(&mut self, patience: CodelParams, now: Instant) {
        let Some(oldest) = self.waiters.front() else {
            (self.first_above_time, self.standing_queue) = (None, false);
            return;
        };
        if now.saturating_duration_since(oldest.queued_at) > patience.target {
            let since = *self.first_above_time.get_or_insert(now);
            self.standing_queue |= now.saturating_duration_since(since) >= patience.interval;
        } else if !self.standing_queue {
            // In a standing queue shedding keeps the oldest waiter young, so only an empty queue
            // ends the state.
            self.first_above_time = None;
        }
    }
}

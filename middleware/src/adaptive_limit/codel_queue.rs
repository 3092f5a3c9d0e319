//! The waiters of one priority: first come, first served, until waiting has become the rule (`CoDel`); then the newest first.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::queue::ShedReason;

/// When waiting is too long.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodelParams {
    /// A wait that is still good.
    pub(super) target: Duration,
    /// Waits above the target for this long make a lasting queue.
    pub(super) interval: Duration,
}

/// Waiters in the order of their arrival.
///
/// In a lasting queue whoever is served in turn has waited so long that the caller may have gone, and so will everyone after. Serving
/// the newest first, and refusing whoever waited too long, gives at least those an answer who can still use it.
#[derive(Debug)]
pub(super) struct CodelQueue<T> {
    waiters: VecDeque<Waiter<T>>,
    /// Not later than the first deadline in the line.
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

    /// Adds a waiter; `id` grows from call to call.
    pub(super) fn push(&mut self, id: u64, deadline: Option<Instant>, item: T, now: Instant) {
        self.next_expiry = [self.next_expiry, deadline].into_iter().flatten().min();
        self.waiters.push_back(Waiter { id, queued_at: now, deadline, item });
    }

    /// The one to serve next.
    pub(super) fn pop(&mut self) -> Option<T> {
        let waiter = if self.standing_queue { self.waiters.pop_back() } else { self.waiters.pop_front() };
        waiter.map(|waiter| waiter.item)
    }

    /// The one who would be served last.
    pub(super) fn evict(&mut self) -> Option<T> {
        let waiter = if self.standing_queue { self.waiters.pop_front() } else { self.waiters.pop_back() };
        waiter.map(|waiter| waiter.item)
    }

    /// Removes a waiter who has gone, if it is still there.
    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let index = self.waiters.binary_search_by_key(&id, |waiter| waiter.id).ok()?;
        self.waiters.remove(index).map(|waiter| waiter.item)
    }

    /// Moves into `leaving` whoever waits in vain.
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
            // Once it lasts, refusals keep the oldest young: then only an empty line is a sign of calm.
            self.first_above_time = None;
        }
    }
}

//! The waiters of one priority: first come, first served, until waiting has become the rule (`CoDel`); then the newest first.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::queue::Refused;

/// When waiting is too long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
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
pub(super) struct Line<T> {
    waiters: VecDeque<Waiter<T>>,
    /// Not later than the first deadline in the line.
    next_expiry: Option<Instant>,
    too_long_since: Option<Instant>,
    lasting: bool,
}

#[derive(Debug)]
struct Waiter<T> {
    id: u64,
    since: Instant,
    deadline: Option<Instant>,
    item: T,
}

impl<T> Line<T> {
    pub(super) fn new() -> Self {
        Self { waiters: VecDeque::new(), next_expiry: None, too_long_since: None, lasting: false }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Adds a waiter; `id` grows from call to call.
    pub(super) fn push(&mut self, id: u64, deadline: Option<Instant>, item: T, now: Instant) {
        self.next_expiry = [self.next_expiry, deadline].into_iter().flatten().min();
        self.waiters.push_back(Waiter { id, since: now, deadline, item });
    }

    /// The one to serve next.
    pub(super) fn take(&mut self) -> Option<T> {
        let waiter = if self.lasting { self.waiters.pop_back() } else { self.waiters.pop_front() };
        waiter.map(|waiter| waiter.item)
    }

    /// The one who would be served last.
    pub(super) fn give_up(&mut self) -> Option<T> {
        let waiter = if self.lasting { self.waiters.pop_front() } else { self.waiters.pop_back() };
        waiter.map(|waiter| waiter.item)
    }

    /// Removes a waiter who has gone, if it is still there.
    pub(super) fn forget(&mut self, id: u64) -> Option<T> {
        let index = self.waiters.binary_search_by_key(&id, |waiter| waiter.id).ok()?;
        self.waiters.remove(index).map(|waiter| waiter.item)
    }

    /// Moves into `leaving` whoever waits in vain.
    pub(super) fn sweep(&mut self, patience: Patience, now: Instant, leaving: &mut Vec<(T, Refused)>) {
        self.look(patience, now);
        if self.next_expiry.is_some_and(|expiry| expiry <= now) {
            let has_expired = |waiter: &Waiter<T>| waiter.deadline.is_some_and(|deadline| deadline <= now);
            let (expired, waiting): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiters).into_iter().partition(has_expired);
            leaving.extend(expired.into_iter().map(|waiter| (waiter.item, Refused::Expired)));
            self.waiters = waiting;
            self.next_expiry = self.waiters.iter().filter_map(|waiter| waiter.deadline).min();
        }
        while self.lasting
            && self.waiters.front().is_some_and(|oldest| now.saturating_duration_since(oldest.since) > patience.target)
            && let Some(oldest) = self.waiters.pop_front()
        {
            leaving.push((oldest.item, Refused::TooLong));
        }
    }

    fn look(&mut self, patience: Patience, now: Instant) {
        let Some(oldest) = self.waiters.front() else {
            (self.too_long_since, self.lasting) = (None, false);
            return;
        };
        if now.saturating_duration_since(oldest.since) > patience.target {
            let since = *self.too_long_since.get_or_insert(now);
            self.lasting |= now.saturating_duration_since(since) >= patience.interval;
        } else if !self.lasting {
            // Once it lasts, refusals keep the oldest young: then only an empty line is a sign of calm.
            self.too_long_since = None;
        }
    }
}

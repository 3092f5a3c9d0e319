//! Who waits for a place, and who is not worth waiting for: bounded, by priority, with an eye on deadlines. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    config::Config,
    codel_queue::{CodelQueue, CodelParams},
};
use crate::metrics::as_f64;
use crate::{jitter::RandomFn, priority::Priority};

/// However low the limit is, so many may wait before any is refused for it: a burst is no overload.
const MIN_SHED_START: f64 = 16.0;
/// However low the limit is, so many may wait.
const MIN_QUEUE_MAX: f64 = 32.0;

/// Waiters, a line per priority.
#[derive(Debug)]
pub(super) struct Queue<T> {
    queues: [CodelQueue<T>; Priority::ALL.len()],
    next_id: u64,
    shed_start: f64,
    max_length: f64,
    codel: CodelParams,
    draw: RandomFn,
}

/// Where a waiter stands, to find it again if it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    priority: Priority,
    id: u64,
}

/// Why somebody does not get a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShedReason {
    /// Too many wait already.
    Full,
    /// The queue lasts, and this one has been in it for too long.
    WaitTooLong,
    /// The deadline passed.
    Expired,
}

impl<T> Queue<T> {
    pub(super) fn new(config: &Config, draw: RandomFn) -> Self {
        let patience =
            CodelParams { target: Duration::from_millis(config.queue_target_ms), interval: Duration::from_millis(config.queue_interval_ms) };
        Self { queues: Priority::ALL.map(|_| CodelQueue::new()), next_id: 0, shed_start: config.queue_shed_start, max_length: config.queue_max, codel: patience, draw }
    }

    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(CodelQueue::len).sum()
    }

    /// Moves into `leaving` whoever waits in vain; to be done before anything else is asked of the queue.
    pub(super) fn sweep(&mut self, now: Instant, leaving: &mut Vec<(T, ShedReason)>) {
        for line in &mut self.queues {
            line.sweep(self.codel, now, leaving);
        }
    }

    /// Whether one more of `priority` may wait while `limit` run. Somebody less important may have to go for it, into `leaving`.
    pub(super) fn make_room(&mut self, priority: Priority, limit: usize, leaving: &mut Vec<(T, ShedReason)>) -> bool {
        if !self.should_drop(limit) {
            return true;
        }
        let mut less_important = self.queues[priority as usize + 1..].iter_mut().rev();
        let evicted = less_important.find_map(CodelQueue::evict);
        let found = evicted.is_some();
        leaving.extend(evicted.map(|item| (item, ShedReason::Full)));
        found
    }

    /// Certainly when it is full, never while it is short, in between at random: all callers backing off at once help no more than none.
    fn should_drop(&self, limit: usize) -> bool {
        let (limit, waiting) = (as_f64(limit), as_f64(self.len()));
        let (from, to) = ((limit * self.shed_start).max(MIN_SHED_START), (limit * self.max_length).max(MIN_QUEUE_MAX));
        waiting >= to || (waiting > from && (self.draw)() < (waiting - from) / (to - from))
    }

    /// Adds a waiter for whom there is room.
    pub(super) fn push(&mut self, priority: Priority, deadline: Option<Instant>, item: T, now: Instant) -> Ticket {
        let id = self.next_id;
        self.next_id += 1;
        self.queues[priority as usize].push(id, deadline, item, now);
        Ticket { priority, id }
    }

    /// The next to be served: of a priority that is `owed` something, else the most important.
    pub(super) fn pop_next(&mut self, below_guaranteed_share: impl Fn(Priority) -> bool) -> Option<(Priority, T)> {
        let waiting = || Priority::ALL.into_iter().filter(|priority| self.queues[*priority as usize].len() > 0);
        let priority = waiting().find(|priority| below_guaranteed_share(*priority)).or_else(|| waiting().next())?;
        self.queues[priority as usize].pop().map(|item| (priority, item))
    }

    /// Removes a waiter who has gone, if it is still there.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.queues[ticket.priority as usize].remove(ticket.id)
    }
}

#[cfg(test)]
mod tests;

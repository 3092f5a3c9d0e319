//! Bounded priority queue of requests waiting for a permit, with deadlines and CoDel. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    codel_queue::{CodelParams, CodelQueue},
    config::Config,
};
use crate::metrics::as_f64;
use crate::{jitter::RandomFn, priority::Priority};

/// Minimum queue length before random shedding starts, however low the limit is: a burst is no
/// overload.
const MIN_SHED_START: f64 = 16.0;
/// Minimum of the maximum queue length, however low the limit is.
const MIN_QUEUE_MAX: f64 = 32.0;

/// Waiters, one CoDel queue per priority.
#[derive(Debug)]
pub(super) struct Queue<T> {
    queues: [CodelQueue<T>; Priority::ALL.len()],
    next_id: u64,
    shed_start: f64,
    max_length: f64,
    codel: CodelParams,
    draw: RandomFn,
}

/// Position of a waiter, to remove it when it is cancelled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    priority: Priority,
    id: u64,
}

/// Why a request is shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShedReason {
    /// The queue is full.
    Full,
    /// The queue is a standing queue and the request waited longer than the target.
    WaitTooLong,
    /// The deadline passed.
    Expired,
}

impl<T> Queue<T> {
    pub(super) fn new(config: &Config, draw: RandomFn) -> Self {
        let patience = CodelParams {
            target: Duration::from_millis(config.queue_target_ms),
            interval: Duration::from_millis(config.queue_interval_ms),
        };
        Self {
            queues: Priority::ALL.map(|_| CodelQueue::new()),
            next_id: 0,
            shed_start: config.queue_shed_start,
            max_length: config.queue_max,
            codel: patience,
            draw,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(CodelQueue::len).sum()
    }

    /// Moves waiters that expired or waited too long into `leaving`. Must run before any other
    /// operation.
    pub(super) fn sweep(&mut self, now: Instant, leaving: &mut Vec<(T, ShedReason)>) {
        for line in &mut self.queues {
            line.sweep(self.codel, now, leaving);
        }
    }

    /// Returns whether another request of `priority` may wait while the limit is `limit`. A waiter
    /// of lower priority may be evicted for it, into `leaving`.
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

    /// Always sheds a full queue, never a short one, and in between at random: callers that all
    /// back off at once help no more than callers that do not.
    fn should_drop(&self, limit: usize) -> bool {
        let (limit, waiting) = (as_f64(limit), as_f64(self.len()));
        let (from, to) = ((limit * self.shed_start).max(MIN_SHED_START), (limit * self.max_length).max(MIN_QUEUE_MAX));
        waiting >= to || (waiting > from && (self.draw)() < (waiting - from) / (to - from))
    }

    /// Adds a waiter after `make_room` returned `true`.
    pub(super) fn push(&mut self, priority: Priority, deadline: Option<Instant>, item: T, now: Instant) -> Ticket {
        let id = self.next_id;
        self.next_id += 1;
        self.queues[priority as usize].push(id, deadline, item, now);
        Ticket { priority, id }
    }

    /// Removes and returns the next waiter: of a priority that is below its guaranteed share, else
    /// of the highest priority.
    pub(super) fn pop_next(&mut self, below_guaranteed_share: impl Fn(Priority) -> bool) -> Option<(Priority, T)> {
        let waiting = || Priority::ALL.into_iter().filter(|priority| self.queues[*priority as usize].len() > 0);
        let priority = waiting().find(|priority| below_guaranteed_share(*priority)).or_else(|| waiting().next())?;
        self.queues[priority as usize].pop().map(|item| (priority, item))
    }

    /// Removes a cancelled waiter, if it is still queued.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.queues[ticket.priority as usize].remove(ticket.id)
    }
}

#[cfg(test)]
mod tests;

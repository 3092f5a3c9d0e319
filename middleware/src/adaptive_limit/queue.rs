//! Who waits for a place, and who is not worth waiting for: bounded, by priority, with an eye on deadlines. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    config::Config,
    line::{Line, Patience},
};
use crate::metrics::as_f64;
use crate::{jitter::Draw, priority::Priority};

/// However low the limit is, so many may wait before any is refused for it: a burst is no overload.
const AT_LEAST_FROM: f64 = 16.0;
/// However low the limit is, so many may wait.
const AT_LEAST_TO: f64 = 32.0;

/// Waiters, a line per priority.
#[derive(Debug)]
pub(super) struct Queue<T> {
    lines: [Line<T>; Priority::ALL.len()],
    next_id: u64,
    from: f64,
    to: f64,
    patience: Patience,
    draw: Draw,
}

/// Where a waiter stands, to find it again if it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    priority: Priority,
    id: u64,
}

/// Why somebody does not get a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many wait already.
    Full,
    /// The queue lasts, and this one has been in it for too long.
    TooLong,
    /// The deadline passed.
    Expired,
}

impl<T> Queue<T> {
    pub(super) fn new(config: &Config, draw: Draw) -> Self {
        let patience =
            Patience { target: Duration::from_millis(config.queue_target_ms), interval: Duration::from_millis(config.queue_interval_ms) };
        Self { lines: Priority::ALL.map(|_| Line::new()), next_id: 0, from: config.queue_from, to: config.queue_to, patience, draw }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.iter().map(Line::len).sum()
    }

    /// Moves into `leaving` whoever waits in vain; to be done before anything else is asked of the queue.
    pub(super) fn sweep(&mut self, now: Instant, leaving: &mut Vec<(T, Refused)>) {
        for line in &mut self.lines {
            line.sweep(self.patience, now, leaving);
        }
    }

    /// Whether one more of `priority` may wait while `limit` run. Somebody less important may have to go for it, into `leaving`.
    pub(super) fn make_room(&mut self, priority: Priority, limit: usize, leaving: &mut Vec<(T, Refused)>) -> bool {
        if !self.is_crowded(limit) {
            return true;
        }
        let mut less_important = self.lines[priority as usize + 1..].iter_mut().rev();
        let evicted = less_important.find_map(Line::give_up);
        let found = evicted.is_some();
        leaving.extend(evicted.map(|item| (item, Refused::Full)));
        found
    }

    /// Certainly when it is full, never while it is short, in between at random: all callers backing off at once help no more than none.
    fn is_crowded(&self, limit: usize) -> bool {
        let (limit, waiting) = (as_f64(limit), as_f64(self.len()));
        let (from, to) = ((limit * self.from).max(AT_LEAST_FROM), (limit * self.to).max(AT_LEAST_TO));
        waiting >= to || (waiting > from && (self.draw)() < (waiting - from) / (to - from))
    }

    /// Adds a waiter for whom there is room.
    pub(super) fn push(&mut self, priority: Priority, deadline: Option<Instant>, item: T, now: Instant) -> Ticket {
        let id = self.next_id;
        self.next_id += 1;
        self.lines[priority as usize].push(id, deadline, item, now);
        Ticket { priority, id }
    }

    /// The next to be served: of a priority that is `owed` something, else the most important.
    pub(super) fn take(&mut self, owed: impl Fn(Priority) -> bool) -> Option<(Priority, T)> {
        let waiting = || Priority::ALL.into_iter().filter(|priority| self.lines[*priority as usize].len() > 0);
        let priority = waiting().find(|priority| owed(*priority)).or_else(|| waiting().next())?;
        self.lines[priority as usize].take().map(|item| (priority, item))
    }

    /// Removes a waiter who has gone, if it is still there.
    pub(super) fn forget(&mut self, ticket: Ticket) -> Option<T> {
        self.lines[ticket.priority as usize].forget(ticket.id)
    }
}

#[cfg(test)]
mod tests;

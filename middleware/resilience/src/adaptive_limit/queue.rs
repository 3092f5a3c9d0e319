//! Bounded, fair priority queue of requests waiting for a permit, with deadlines and CoDel. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    callers::Callers,
    codel_queue::{CodelParams, CodelQueue},
    config::Config,
};
use crate::{caller::CallerKey, jitter::RandomFn, metrics::as_f64, priority::Priority};

/// Minimum queue length before random shedding starts, however low the limit is: a burst is no
/// overload.
const MIN_SHED_START: f64 = 16.0;
/// Minimum of the maximum queue length, however low the limit is.
const MIN_QUEUE_MAX: f64 = 32.0;
/// Queue bounds before authentication while the queue is a standing queue, parts of the limit: its
/// arrivals replace waiters that would be shed after the target, so more of them are wasted work.
const STANDING_BOUNDS: (f64, f64) = (0.125, 0.25);

/// Waiters, one CoDel queue per priority.
#[derive(Debug)]
pub(super) struct Queue<T> {
    queues: [CodelQueue<T>; Priority::ALL.len()],
    callers: Callers,
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
    /// The request waited longer than the target in a standing queue, or longer than any may.
    WaitTooLong,
    /// The queue is too long and the caller takes more than its share.
    AboveShare,
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
            callers: Callers::default(),
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

    /// Returns the callers with running or waiting requests.
    pub(super) fn callers(&self) -> &Callers {
        &self.callers
    }

    /// Counts a request that starts.
    pub(super) fn start(&mut self, caller: CallerKey) {
        let running = self.callers.start(caller);
        self.queues.iter_mut().for_each(|queue| queue.set_running(caller, running));
    }

    /// Counts a request that ends.
    pub(super) fn end(&mut self, caller: CallerKey) {
        let running = self.callers.end(caller);
        self.queues.iter_mut().for_each(|queue| queue.set_running(caller, running));
    }

    /// Moves waiters that expired or waited too long into `leaving`. Must run before any other
    /// operation.
    pub(super) fn sweep(&mut self, limit: usize, now: Instant, leaving: &mut Vec<(T, ShedReason)>) {
        let mut left = Vec::new();
        for queue in &mut self.queues {
            queue.sweep(self.codel, (&self.callers, limit), now, &mut left);
        }
        for (caller, item, why) in left {
            leaving.push((item, self.blame(caller, 0, limit, why)));
            self.callers.leave(caller);
        }
    }

    /// Replaces the reason if the caller takes more than its share.
    fn blame(&self, caller: CallerKey, more: usize, limit: usize, why: ShedReason) -> ShedReason {
        if why != ShedReason::Expired && self.callers.is_above_share(caller, more, limit) { ShedReason::AboveShare } else { why }
    }

    /// Decides whether another request may wait while the limit is `limit`. For it, a waiter of
    /// lower priority may be evicted, or one of a caller with more waiters, into `leaving`.
    pub(super) fn make_room(
        &mut self,
        (priority, caller): (Priority, CallerKey),
        limit: usize,
        leaving: &mut Vec<(T, ShedReason)>,
    ) -> Result<(), ShedReason> {
        let bounds = (self.shed_start, self.max_length);
        if self.callers.is_modest(caller, 1, limit) || !self.should_drop(limit, bounds) {
            return Ok(());
        }
        let own = self.callers.waiting(caller);
        let longer = |(waiting, of): (usize, CallerKey)| (waiting > own + 1).then_some(of);
        let lower = (priority as usize + 1..self.queues.len()).rev();
        let victim = lower.map(|queue| (queue, self.queues[queue].longest().map(|(_, of)| of)));
        let same = (priority as usize, self.queues[priority as usize].longest().and_then(longer));
        let Some((queue, of)) = victim.chain([same]).find_map(|(queue, of)| Some((queue, of?))) else {
            return Err(self.blame(caller, 1, limit, ShedReason::Full));
        };
        if let Some(item) = self.queues[queue].evict(of) {
            leaving.push((item, self.blame(of, 0, limit, ShedReason::Full)));
            self.callers.leave(of);
        }
        Ok(())
    }

    /// Decides before authentication whether a request of `caller` would only add to the overload.
    pub(super) fn refuse_early(&self, caller: CallerKey, limit: usize) -> Option<ShedReason> {
        let standing = self.queues.iter().any(CodelQueue::is_standing);
        let bounds = if standing { STANDING_BOUNDS } else { (self.shed_start, self.max_length) };
        let refused = !self.callers.is_modest(caller, 1, limit) && self.should_drop(limit, bounds);
        refused.then(|| self.blame(caller, 1, limit, ShedReason::Full))
    }

    /// Always sheds a full queue, never a short one, and in between at random: callers that all
    /// back off at once help no more than callers that do not.
    fn should_drop(&self, limit: usize, (start, max): (f64, f64)) -> bool {
        let (limit, waiting) = (as_f64(limit), as_f64(self.len()));
        let (from, to) = ((limit * start).max(MIN_SHED_START), (limit * max).max(MIN_QUEUE_MAX));
        waiting >= to || (waiting > from && (self.draw)() < (waiting - from) / (to - from))
    }

    /// Adds a waiter after `make_room` accepted it. Returns the time of the next [`Self::sweep`]
    /// for it.
    pub(super) fn push(
        &mut self,
        (priority, caller): (Priority, CallerKey),
        deadline: Option<Instant>,
        item: T,
        now: Instant,
    ) -> (Ticket, Instant) {
        let id = self.next_id;
        self.next_id += 1;
        let running = self.callers.running(caller);
        self.callers.join(caller);
        let queue = &mut self.queues[priority as usize];
        queue.push(id, (caller, running), deadline, item, now);
        let patience = if queue.is_standing() { self.codel.target } else { self.codel.max_wait() };
        (Ticket { priority, id }, now + patience)
    }

    /// Returns the maximum queue wait.
    pub(super) fn max_wait(&self) -> Duration {
        self.codel.max_wait()
    }

    /// Removes and returns the next waiter: of a priority that is below its guaranteed share, else
    /// of the highest priority. Callers that are not `eligible` are passed over.
    pub(super) fn pop_next(
        &mut self,
        below_guaranteed_share: impl Fn(Priority) -> bool,
        eligible: impl Fn(Priority, CallerKey, &Callers) -> bool,
    ) -> Option<(Priority, CallerKey, T)> {
        let candidates = || {
            let next = Priority::ALL.into_iter().filter_map(|priority| Some((priority, self.queues[priority as usize].next_caller()?)));
            next.filter(|(priority, caller)| eligible(*priority, *caller, &self.callers))
        };
        let guaranteed = candidates().find(|(priority, _)| below_guaranteed_share(*priority));
        let (priority, caller) = guaranteed.or_else(|| candidates().next())?;
        let item = self.queues[priority as usize].pop(caller)?;
        self.callers.leave(caller);
        Some((priority, caller, item))
    }

    /// Removes a cancelled waiter, if it is still queued.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let (caller, item) = self.queues[ticket.priority as usize].remove(ticket.id)?;
        self.callers.leave(caller);
        Some(item)
    }
}

#[cfg(test)]
mod tests;

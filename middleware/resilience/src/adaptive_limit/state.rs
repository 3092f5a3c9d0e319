//! State of the adaptive limit: running and queued requests, and all decisions on them. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    callers::Callers,
    config::Config,
    gradient::Gradient,
    queue::{Queue, ShedReason, Ticket},
    window::Window,
};
use crate::{caller::CallerKey, fair_share, jitter::RandomFn, metrics::as_f64, priority::Priority};

/// The limit with its running and queued requests. `T` is the handle of a waiter.
#[derive(Debug)]
pub(super) struct State<T> {
    gradient: Gradient,
    window: Window,
    queue: Queue<T>,
    running: [usize; Priority::ALL.len()],
    in_use: usize,
    /// Guaranteed share of the limit by priority, 0 to 1.
    guaranteed: [f64; Priority::ALL.len()],
}

/// Latency sample of a finished request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// Completed after this time.
    Completed(Duration),
    /// Not completed within this time.
    TimedOut(Duration),
}

/// How a waiter leaves the queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueueExit {
    /// It gets a permit.
    Admitted(Priority, CallerKey),
    /// It is shed.
    Shed(ShedReason),
}

/// Snapshot of the limit and its use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Occupancy {
    pub(super) limit: usize,
    pub(super) in_use: usize,
    pub(super) waiting: usize,
    /// Samples in the current window.
    pub(super) sampled: usize,
}

impl<T> State<T> {
    pub(super) fn new(config: &Config, draw: RandomFn, now: Instant) -> Self {
        let share = |percent: u8| f64::from(percent) / 100.0;
        Self {
            gradient: Gradient::new(config),
            window: Window::new(Duration::from_millis(config.window_ms), now),
            queue: Queue::new(config, draw),
            running: [0; Priority::ALL.len()],
            in_use: 0,
            guaranteed: [share(config.critical_percent), share(config.default_percent), share(config.batch_percent), 0.0],
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.gradient.limit()
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        Occupancy { limit: self.limit(), in_use: self.in_use, waiting: self.queue.len(), sampled: self.window.calls() }
    }

    /// Admits a request if a permit is free for its caller: any permit below its share, else one
    /// outside the reserve while the queue is empty. Below the limit all priorities are equal.
    pub(super) fn try_admit(&mut self, priority: Priority, caller: CallerKey) -> bool {
        let free = if self.queue.callers().waiting(caller) == 0 && self.queue.callers().is_below_share(caller, self.limit()) {
            self.in_use < self.limit()
        } else {
            self.in_use < self.unreserved(priority) && self.queue.len() == 0
        };
        if free {
            self.start(priority, caller);
        }
        free
    }

    /// Returns the permits that callers above their share may use. Critical requests finish work
    /// that was accepted, so the reserve is theirs too.
    fn unreserved(&self, priority: Priority) -> usize {
        let limit = self.limit();
        if priority == Priority::Critical { limit } else { limit - fair_share::reserve(limit) }
    }

    /// Decides whether a request that was not admitted may wait. Returns the waiters that leave the
    /// queue meanwhile.
    pub(super) fn may_queue(
        &mut self,
        priority: Priority,
        caller: CallerKey,
        now: Instant,
    ) -> (Result<(), ShedReason>, Vec<(T, ShedReason)>) {
        let mut leaving = Vec::new();
        let limit = self.limit();
        self.queue.sweep(limit, now, &mut leaving);
        let may = self.queue.make_room((priority, caller), limit, &mut leaving);
        (may, leaving)
    }

    /// Decides before authentication whether a request of `caller` would only add to the overload.
    pub(super) fn refuse_early(&self, caller: CallerKey) -> Option<ShedReason> {
        self.queue.refuse_early(caller, self.limit())
    }

    /// Queues a request. Returns its ticket and the time of the next [`Self::sweep`] for it.
    pub(super) fn enqueue(
        &mut self,
        priority: Priority,
        caller: CallerKey,
        deadline: Option<Instant>,
        item: T,
        now: Instant,
    ) -> (Ticket, Instant) {
        // The limit is reached for this caller, although a reserve may be left.
        self.window.record_in_flight(self.limit());
        self.queue.push((priority, caller), deadline, item, now)
    }

    /// Removes a cancelled waiter; returns its handle if it was still queued.
    pub(super) fn remove_waiter(&mut self, ticket: Ticket) -> Option<T> {
        self.queue.remove(ticket)
    }

    /// Returns the waiters that waited too long, without waiting for another request to end.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<(T, ShedReason)> {
        let mut leaving = Vec::new();
        self.queue.sweep(self.limit(), now, &mut leaving);
        leaving
    }

    /// Returns the maximum queue wait.
    pub(super) fn max_wait(&self) -> Duration {
        self.queue.max_wait()
    }

    /// Returns whether requests are waiting.
    pub(super) fn has_queue(&self) -> bool {
        self.queue.len() > 0
    }

    /// Records the end of a request. Returns the waiters that leave the queue, and how.
    pub(super) fn finish(&mut self, priority: Priority, caller: CallerKey, sample: Option<Sample>, now: Instant) -> Vec<(T, QueueExit)> {
        self.running[priority as usize] -= 1;
        self.in_use -= 1;
        self.queue.end(caller);
        self.record_sample(sample, now);
        if self.queue.len() == 0 {
            return Vec::new();
        }
        let refused = self.sweep(now);
        let mut leaving: Vec<_> = refused.into_iter().map(|(item, why)| (item, QueueExit::Shed(why))).collect();
        let limit = self.limit();
        while self.in_use < limit {
            let (running, guaranteed, in_use) = (&self.running, &self.guaranteed, self.in_use);
            let owed = |priority: Priority| {
                let priority = priority as usize;
                as_f64(running[priority] + 1) <= as_f64(limit) * guaranteed[priority]
            };
            let unreserved = Priority::ALL.map(|priority| self.unreserved(priority));
            let eligible = |priority: Priority, caller: CallerKey, callers: &Callers| {
                in_use < unreserved[priority as usize] || callers.is_below_share(caller, limit)
            };
            let Some((priority, caller, item)) = self.queue.pop_next(owed, eligible) else { break };
            self.start(priority, caller);
            leaving.push((item, QueueExit::Admitted(priority, caller)));
        }
        leaving
    }

    fn start(&mut self, priority: Priority, caller: CallerKey) {
        self.queue.start(caller);
        self.running[priority as usize] += 1;
        self.in_use += 1;
        self.window.record_in_flight(self.in_use);
    }

    fn record_sample(&mut self, sample: Option<Sample>, now: Instant) {
        let latency = match sample {
            None => return,
            Some(Sample::Completed(latency)) => Some(latency),
            // A timeout shorter than the baseline latency says nothing about the server.
            Some(Sample::TimedOut(after)) if self.gradient.baseline_latency().is_some_and(|usual| after < usual) => return,
            Some(Sample::TimedOut(_)) => None,
        };
        if let Some(seen) = self.window.record(latency, self.in_use, now) {
            self.gradient.update(&seen);
        }
    }
}

#[cfg(test)]
mod tests;

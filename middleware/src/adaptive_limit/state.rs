//! Who runs, who waits, and how many may: all that the limit decides, pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    config::Config,
    gradient::Gradient,
    queue::{Queue, ShedReason, Ticket},
    window::Window,
};
use crate::metrics::as_f64;
use crate::{jitter::RandomFn, priority::Priority};

/// The limit with those who run under it and those who wait for it; `T` reaches a waiter.
#[derive(Debug)]
pub(super) struct State<T> {
    gradient: Gradient,
    window: Window,
    queue: Queue<T>,
    running: [usize; Priority::ALL.len()],
    in_use: usize,
    /// The share of the limit that each priority can count on.
    guaranteed: [f64; Priority::ALL.len()],
}

/// What a request that has ended says of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// It was answered after this long.
    Completed(Duration),
    /// It was not answered within this time.
    TimedOut(Duration),
}

/// What becomes of a waiter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueueExit {
    /// Its turn has come.
    Admitted(Priority),
    /// It waits in vain.
    Shed(ShedReason),
}

/// What can be seen from outside.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Occupancy {
    pub(super) limit: usize,
    pub(super) in_use: usize,
    pub(super) waiting: usize,
    /// Requests that were counted since the limit was last thought over.
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

    /// Lets a request in if there is a place that nobody waits for. Below the limit all are equal.
    pub(super) fn try_admit(&mut self, priority: Priority) -> bool {
        let free = self.in_use < self.limit() && self.queue.len() == 0;
        if free {
            self.start(priority);
        }
        free
    }

    /// Whether a request that could not enter may wait; others may have to leave for it.
    pub(super) fn may_queue(&mut self, priority: Priority, now: Instant) -> (bool, Vec<(T, ShedReason)>) {
        let mut leaving = Vec::new();
        self.queue.sweep(now, &mut leaving);
        let may = self.queue.make_room(priority, self.gradient.limit(), &mut leaving);
        (may, leaving)
    }

    /// Lets a request wait.
    pub(super) fn enqueue(&mut self, priority: Priority, deadline: Option<Instant>, item: T, now: Instant) -> Ticket {
        self.queue.push(priority, deadline, item, now)
    }

    /// A waiter has gone by itself; what reached it, if it was still waiting.
    pub(super) fn remove_waiter(&mut self, ticket: Ticket) -> Option<T> {
        self.queue.remove(ticket)
    }

    /// A request has ended. Who leaves the queue now, and how.
    pub(super) fn finish(&mut self, priority: Priority, sample: Option<Sample>, now: Instant) -> Vec<(T, QueueExit)> {
        self.running[priority as usize] -= 1;
        self.in_use -= 1;
        self.record_sample(sample, now);
        if self.queue.len() == 0 {
            return Vec::new();
        }
        let mut refused = Vec::new();
        self.queue.sweep(now, &mut refused);
        let mut leaving: Vec<_> = refused.into_iter().map(|(item, why)| (item, QueueExit::Shed(why))).collect();
        let limit = self.limit();
        while self.in_use < limit {
            let (running, guaranteed) = (&self.running, &self.guaranteed);
            let owed = |priority: Priority| {
                let priority = priority as usize;
                as_f64(running[priority] + 1) <= as_f64(limit) * guaranteed[priority]
            };
            let Some((priority, item)) = self.queue.pop_next(owed) else { break };
            self.start(priority);
            leaving.push((item, QueueExit::Admitted(priority)));
        }
        leaving
    }

    fn start(&mut self, priority: Priority) {
        self.running[priority as usize] += 1;
        self.in_use += 1;
        self.window.record_in_flight(self.in_use);
    }

    fn record_sample(&mut self, sample: Option<Sample>, now: Instant) {
        let latency = match sample {
            None => return,
            Some(Sample::Completed(latency)) => Some(latency),
            // Who has less patience than a request usually takes says nothing of the server.
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

//! Queue of a group commit: decides when a batch starts and which items it holds.

use std::{collections::VecDeque, fmt, time::Duration};

/// Limits of a group commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of items per batch.
    pub max_batch: usize,
    /// Maximum number of batches in progress. A further one starts only while all others are slow,
    /// so that a batch that waits for a lock does not delay the next ones.
    pub max_concurrent: usize,
    /// Duration after which a batch is slow.
    pub slow_after: Duration,
    /// Maximum number of waiting items. Further ones are rejected.
    pub capacity: usize,
    /// Maximum duration of a batch. An unresponsive database then blocks the queue no longer.
    pub time_limit: Duration,
}

impl Limits {
    /// Default limits.
    pub const DEFAULT: Self = Self {
        max_batch: 64,
        max_concurrent: 4,
        slow_after: Duration::from_millis(100),
        capacity: 4_096,
        time_limit: Duration::from_secs(10),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Waiting items and the number of batches in progress.
///
/// Invariant: while items wait, at least one flush is in progress, which takes them when its batch
/// ends. So no item waits forever.
pub(super) struct Queue<T> {
    items: VecDeque<T>,
    flushes: usize,
    /// Flushes whose batch is slow.
    slow: usize,
    limits: Limits,
}

/// Result of [`Queue::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The item waits, and the caller must start a flush.
    First,
    /// The item waits for a flush in progress.
    Joined,
    /// The queue is full: the item was not added.
    Full,
}

impl<T> Queue<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { items: VecDeque::new(), flushes: 0, slow: 0, limits }
    }

    /// Adds an item.
    pub(super) fn push(&mut self, item: T) -> Pushed {
        if self.items.len() >= self.limits.capacity.max(1) {
            return Pushed::Full;
        }
        self.items.push_back(item);
        if self.start_flush() { Pushed::First } else { Pushed::Joined }
    }

    /// Counts a new flush if no other one will take the waiting items soon.
    fn start_flush(&mut self) -> bool {
        let is_needed = self.flushes == self.slow && self.flushes < self.limits.max_concurrent.max(1);
        self.flushes += usize::from(is_needed);
        is_needed
    }

    /// Records that the batch of a flush is slow. Returns whether the caller must start a flush for
    /// the waiting items.
    pub(super) fn slow_begins(&mut self) -> bool {
        self.slow += 1;
        !self.items.is_empty() && self.start_flush()
    }

    /// Records that the slow batch of a flush has ended.
    pub(super) fn slow_ends(&mut self) {
        self.slow -= 1;
    }

    /// Takes the next batch of a flush, oldest items first. `None` ends the flush.
    pub(super) fn take(&mut self) -> Option<Vec<T>> {
        if self.items.is_empty() {
            self.flushes -= 1;
            return None;
        }
        let size = self.items.len().min(self.limits.max_batch.max(1));
        Some(self.items.drain(..size).collect())
    }

    /// Ends a flush that was dropped. Returns the items that no other flush will take.
    pub(super) fn abandon(&mut self) -> VecDeque<T> {
        self.flushes -= 1;
        if self.flushes == 0 { std::mem::take(&mut self.items) } else { VecDeque::new() }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.items.len()).field("flushes", &self.flushes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A model of tasks: each step pushes an item, lets one of the flushes take its next batch,
        /// or lets a batch become slow or end. Every accepted item leaves the queue once, in order,
        /// and none is left behind.
        #[test]
        fn items_leave_once_and_in_order(
            steps in prop::collection::vec(0..4_u8, 1..200),
            max_batch in 1..5_usize, max_concurrent in 1..4_usize, capacity in 1..9_usize,
        ) {
            let mut queue = Queue::new(Limits { max_batch, max_concurrent, capacity, ..Limits::default() });
            let (mut flushes, mut slow, mut accepted, mut taken) = (0, 0, Vec::new(), Vec::new());
            let mut number = 0;
            let mut run = |queue: &mut Queue<i32>, flushes: &mut usize| {
                match queue.take() {
                    Some(batch) => {
                        prop_assert!(!batch.is_empty() && batch.len() <= max_batch);
                        taken.extend(batch);
                    }
                    None => *flushes -= 1,
                }
                Ok(())
            };
            for step in steps {
                match step {
                    0 => {
                        let waiting = queue.items.len();
                        match queue.push(number) {
                            Pushed::Full => prop_assert_eq!(waiting, capacity),
                            Pushed::First => { flushes += 1; accepted.push(number) }
                            Pushed::Joined => { prop_assert!(flushes > slow || flushes == max_concurrent); accepted.push(number) }
                        }
                        number += 1;
                    }
                    1 if flushes > slow => run(&mut queue, &mut flushes)?,
                    2 if flushes > slow => {
                        slow += 1;
                        flushes += usize::from(queue.slow_begins());
                    }
                    3 if slow > 0 => {
                        slow -= 1;
                        queue.slow_ends();
                    }
                    _ => {}
                }
                prop_assert!(flushes <= max_concurrent && queue.items.len() <= capacity);
                prop_assert_eq!((queue.flushes, queue.slow), (flushes, slow));
                prop_assert!(queue.items.is_empty() || flushes > 0);
            }
            while slow > 0 {
                slow -= 1;
                queue.slow_ends();
            }
            while flushes > 0 {
                run(&mut queue, &mut flushes)?;
            }
            prop_assert_eq!(accepted, taken);
        }
    }
}

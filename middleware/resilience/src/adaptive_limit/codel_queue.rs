//! Fair CoDel queue of one priority (RFC 8289, RFC 8290): the caller with the fewest running
//! requests is served first. Among equal callers first in, first out, and last in, first out in a
//! standing queue.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::{callers::Callers, queue::ShedReason};
use crate::caller::CallerKey;

/// CoDel parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodelParams {
    /// Acceptable queue wait.
    pub(super) target: Duration,
    /// Time above the target after which the queue is a standing queue.
    pub(super) interval: Duration,
}

impl CodelParams {
    /// Returns the maximum queue wait of any request, whether or not others leave the queue.
    pub(super) fn max_wait(self) -> Duration {
        self.target + self.interval
    }
}

/// Waiters in order of arrival, and by caller.
///
/// In a standing queue FIFO order serves each request so late that its caller may be gone, and so
/// will every later one. LIFO order, with requests that waited too long shed, answers at least the
/// callers who can still use the response. A caller whose demand is within its share did not cause
/// the queue, so its requests are shed only after the maximum wait.
#[derive(Debug)]
pub(super) struct CodelQueue<T> {
    waiters: BTreeMap<u64, Waiter<T>>,
    flows: FxHashMap<CallerKey, Flow>,
    /// Running requests of each waiting caller, and its oldest waiter.
    by_running: BTreeSet<(usize, u64, CallerKey)>,
    /// Number of waiters of each waiting caller.
    by_length: BTreeSet<(usize, CallerKey)>,
    /// Lower bound of the earliest deadline in the queue.
    next_expiry: Option<Instant>,
    first_above_time: Option<Instant>,
    standing_queue: bool,
}

#[derive(Debug)]
struct Waiter<T> {
    caller: CallerKey,
    queued_at: Instant,
    deadline: Option<Instant>,
    item: T,
}

/// Waiters of one caller.
#[derive(Debug, Default)]
struct Flow {
    ids: VecDeque<u64>,
    running: usize,
}

impl<T> CodelQueue<T> {
    pub(super) fn new() -> Self {
        Self {
            waiters: BTreeMap::new(),
            flows: FxHashMap::default(),
            by_running: BTreeSet::new(),
            by_length: BTreeSet::new(),
            next_expiry: None,
            first_above_time: None,
            standing_queue: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_standing(&self) -> bool {
        self.standing_queue
    }

    /// Changes the flow of `caller` and keeps the orders up to date.
    fn with_flow<R>(&mut self, caller: CallerKey, change: impl FnOnce(&mut Flow) -> R) -> R {
        let mut flow = self.flows.remove(&caller).unwrap_or_default();
        if let Some(oldest) = flow.ids.front() {
            self.by_running.remove(&(flow.running, *oldest, caller));
            self.by_length.remove(&(flow.ids.len(), caller));
        }
        let result = change(&mut flow);
        if let Some(oldest) = flow.ids.front() {
            self.by_running.insert((flow.running, *oldest, caller));
            self.by_length.insert((flow.ids.len(), caller));
            self.flows.insert(caller, flow);
        }
        result
    }

    /// Updates the number of running requests of `caller`.
    pub(super) fn set_running(&mut self, caller: CallerKey, running: usize) {
        if self.flows.contains_key(&caller) {
            self.with_flow(caller, |flow| flow.running = running);
        }
    }

    /// Adds a waiter; `id` must increase from call to call.
    pub(super) fn push(&mut self, id: u64, (caller, running): (CallerKey, usize), deadline: Option<Instant>, item: T, now: Instant) {
        self.next_expiry = [self.next_expiry, deadline].into_iter().flatten().min();
        self.waiters.insert(id, Waiter { caller, queued_at: now, deadline, item });
        self.with_flow(caller, |flow| {
            flow.running = running;
            flow.ids.push_back(id);
        });
    }

    /// Returns the caller to serve next: the one with the fewest running requests.
    pub(super) fn next_caller(&self) -> Option<CallerKey> {
        let first @ (running, ..) = *self.by_running.first()?;
        if !self.standing_queue {
            return Some(first.2);
        }
        let equal = self.by_running.range(first..(running + 1, 0, CallerKey::unknown()));
        equal.last().map(|(.., caller)| *caller)
    }

    /// Removes and returns the next waiter of `caller`.
    pub(super) fn pop(&mut self, caller: CallerKey) -> Option<T> {
        let newest_first = self.standing_queue;
        let id = self.with_flow(caller, |flow| if newest_first { flow.ids.pop_back() } else { flow.ids.pop_front() })?;
        self.waiters.remove(&id).map(|waiter| waiter.item)
    }

    /// Returns the caller with the most waiters, and their number.
    pub(super) fn longest(&self) -> Option<(usize, CallerKey)> {
        self.by_length.last().copied()
    }

    /// Removes and returns the waiter of `caller` that would be served last.
    pub(super) fn evict(&mut self, caller: CallerKey) -> Option<T> {
        let newest_first = self.standing_queue;
        let id = self.with_flow(caller, |flow| if newest_first { flow.ids.pop_front() } else { flow.ids.pop_back() })?;
        self.waiters.remove(&id).map(|waiter| waiter.item)
    }

    /// Removes a waiter that was cancelled or waited too long, if it is still queued.
    pub(super) fn remove(&mut self, id: u64) -> Option<(CallerKey, T)> {
        let Waiter { caller, item, .. } = self.waiters.remove(&id)?;
        self.with_flow(caller, |flow| {
            if let Ok(index) = flow.ids.binary_search(&id) {
                flow.ids.remove(index);
            }
        });
        Some((caller, item))
    }

    /// Updates the CoDel state, then moves waiters that expired or waited too long into `leaving`.
    pub(super) fn sweep(
        &mut self,
        params: CodelParams,
        (callers, limit): (&Callers, usize),
        now: Instant,
        leaving: &mut Vec<(CallerKey, T, ShedReason)>,
    ) {
        self.update_codel(params, now);
        if self.next_expiry.is_some_and(|expiry| expiry <= now) {
            let has_expired = |waiter: &Waiter<T>| waiter.deadline.is_some_and(|deadline| deadline <= now);
            let expired: Vec<_> = self.waiters.iter().filter(|(_, waiter)| has_expired(waiter)).map(|(id, _)| *id).collect();
            self.move_out(expired, ShedReason::Expired, leaving);
            self.next_expiry = self.waiters.values().filter_map(|waiter| waiter.deadline).min();
        }
        let patience = if self.standing_queue { params.target } else { params.max_wait() };
        let waited = |waiter: &Waiter<T>| now.saturating_duration_since(waiter.queued_at);
        let is_due = |waiter: &Waiter<T>| waited(waiter) >= params.max_wait() || !callers.is_modest(waiter.caller, 0, limit);
        let old = self.waiters.iter().take_while(|(_, waiter)| waited(waiter) > patience || waited(waiter) >= params.max_wait());
        let late: Vec<_> = old.filter(|(_, waiter)| is_due(waiter)).map(|(id, _)| *id).collect();
        self.move_out(late, ShedReason::WaitTooLong, leaving);
    }

    fn move_out(&mut self, ids: Vec<u64>, why: ShedReason, leaving: &mut Vec<(CallerKey, T, ShedReason)>) {
        leaving.extend(ids.into_iter().filter_map(|id| self.remove(id)).map(|(caller, item)| (caller, item, why)));
    }

    fn update_codel(&mut self, patience: CodelParams, now: Instant) {
        let Some((_, oldest)) = self.waiters.first_key_value() else {
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

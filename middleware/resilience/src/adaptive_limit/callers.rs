//! Demand of each caller: its running and waiting requests, and whether they are within its share.
//! Pure.

use rustc_hash::FxHashMap;

use crate::{caller::CallerKey, fair_share};

/// Callers with running or waiting requests. Bounded by the limit and the length of the queue.
#[derive(Debug, Default)]
pub(super) struct Callers(FxHashMap<CallerKey, Demand>);

#[derive(Debug, Default, Clone, Copy)]
struct Demand {
    running: usize,
    waiting: usize,
}

impl Callers {
    fn of(&self, caller: CallerKey) -> Demand {
        self.0.get(&caller).copied().unwrap_or_default()
    }

    fn change(&mut self, caller: CallerKey, change: impl FnOnce(&mut Demand)) {
        let demand = self.0.entry(caller).or_default();
        change(demand);
        if demand.running == 0 && demand.waiting == 0 {
            self.0.remove(&caller);
        }
    }

    /// Counts a request that starts, and returns the number of running requests of its caller.
    pub(super) fn start(&mut self, caller: CallerKey) -> usize {
        self.change(caller, |demand| demand.running += 1);
        self.of(caller).running
    }

    /// Counts a request that ends, and returns the number of running requests of its caller.
    pub(super) fn end(&mut self, caller: CallerKey) -> usize {
        self.change(caller, |demand| demand.running -= 1);
        self.of(caller).running
    }

    /// Counts a request that joins the queue.
    pub(super) fn join(&mut self, caller: CallerKey) {
        self.change(caller, |demand| demand.waiting += 1);
    }

    /// Counts a request that leaves the queue.
    pub(super) fn leave(&mut self, caller: CallerKey) {
        self.change(caller, |demand| demand.waiting -= 1);
    }

    /// Returns the number of running requests of `caller`.
    pub(super) fn running(&self, caller: CallerKey) -> usize {
        self.of(caller).running
    }

    /// Returns the number of waiting requests of `caller`.
    pub(super) fn waiting(&self, caller: CallerKey) -> usize {
        self.of(caller).waiting
    }

    /// Returns whether the running requests of `caller` are below its share of `limit`.
    pub(super) fn is_below_share(&self, caller: CallerKey, limit: usize) -> bool {
        let Demand { running, waiting } = self.of(caller);
        fair_share::is_below_share(running, limit, self.0.len() + usize::from(running + waiting == 0))
    }

    /// Returns whether the whole demand of `caller`, with `more` requests, is within its share of
    /// `limit`.
    pub(super) fn is_modest(&self, caller: CallerKey, more: usize, limit: usize) -> bool {
        let Demand { running, waiting } = self.of(caller);
        let demand = running + waiting;
        let callers = self.0.len() + usize::from(demand == 0 && more > 0);
        (demand + more) * (callers + 1) <= limit
    }

    /// Returns whether `caller` takes more than its share, at the cost of other or later callers.
    /// One request at a time is never too much.
    pub(super) fn is_above_share(&self, caller: CallerKey, more: usize, limit: usize) -> bool {
        let Demand { running, waiting } = self.of(caller);
        let has_others = self.0.len() > 1 || fair_share::reserve(limit) > 0;
        has_others && running + waiting + more > 1 && !self.is_modest(caller, more, limit)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

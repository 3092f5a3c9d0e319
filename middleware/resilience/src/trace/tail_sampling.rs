//! Tail sampling: the spans of an unsampled trace are held in memory and exported once the trace
//! turns out to be worth it: a request failed or was slow. A held span is a few words and a
//! closure; its attributes are computed only if it is exported.
//!
//! The process that began the trace decides, so that a trace is exported whole or not at all. It
//! sends its verdict ([`Verdict`]) to the endpoints that it called, which export their spans and
//! pass the verdict on. A token bucket per reason bounds the exported traces.
//!
//! A verdict names the trace and the calling span. Only the caller has the id of that span, so no
//! other client can have spans exported.

mod exemplar;
mod held_span;
mod held_trace;
mod verdict;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use opentelemetry::{SpanId, TraceId};
use parking_lot::Mutex;

use crate::log_budget::LogBudget;

pub use self::{
    exemplar::{ExemplarSlots, offer_exemplar},
    held_span::{Replay, replayed},
    verdict::{KEPT_TRACES_HEADER, MAX_VERDICTS, SendVerdict, Verdict},
};
pub(super) use self::{
    held_span::{HeldSpan, StartSpan, current},
    held_trace::HeldTrace,
};

/// Duration from which a response is slow: the latency objective of the gateway.
pub const SLOW: Duration = Duration::from_millis(250);
/// Reason of a trace whose request succeeded, although a part of it failed.
pub(super) const PARTIAL_FAILURE: &str = "partial_failure";
/// Reason of a trace whose request was slow.
pub(super) const SLOW_REASON: &str = "slow";

/// Held traces of the process.
#[derive(Debug)]
pub struct TailSampling {
    /// Traces that wait for the verdict of another process, oldest first.
    awaiting: Mutex<VecDeque<Arc<HeldTrace>>>,
    max_awaiting: usize,
    budget: LogBudget,
}

impl TailSampling {
    /// Holds the spans of at most `max_awaiting` traces that other processes began. A newer trace
    /// replaces the oldest one.
    pub fn new(max_awaiting: usize) -> Self {
        for outcome in ["kept", "over_budget", "expired", "unsent"] {
            count(outcome, 0);
        }
        Self { awaiting: Mutex::new(VecDeque::with_capacity(max_awaiting)), max_awaiting, budget: LogBudget::default() }
    }

    /// Begins a trace of this process: its outcome decides.
    pub(super) fn begin(self: &Arc<Self>, id: TraceId) -> Arc<HeldTrace> {
        Arc::new(HeldTrace::new(self.clone(), id, None))
    }

    /// Continues the trace of a calling process, which decides.
    pub(super) fn join(self: &Arc<Self>, id: TraceId, caller: SpanId) -> Arc<HeldTrace> {
        let trace = Arc::new(HeldTrace::new(self.clone(), id, Some(caller)));
        let mut awaiting = self.awaiting.lock();
        let oldest = if awaiting.len() >= self.max_awaiting { awaiting.pop_front() } else { None };
        awaiting.push_back(trace.clone());
        drop(awaiting);
        // Freed without the lock.
        drop(oldest);
        trace
    }

    /// Exports the held spans of a trace whose caller decided so.
    pub(super) fn keep(&self, verdict: Verdict) {
        let is_named = |trace: &&Arc<HeldTrace>| trace.is_named_by(verdict);
        let named: Vec<_> = self.awaiting.lock().iter().filter(is_named).cloned().collect();
        if named.is_empty() {
            count("expired", 1);
        }
        for trace in named {
            trace.keep();
        }
    }

    /// Returns whether one more trace may be exported for this reason.
    pub(super) fn admit(&self, reason: &'static str) -> bool {
        let admitted = self.budget.admit(reason).is_some();
        count(if admitted { "kept" } else { "over_budget" }, 1);
        admitted
    }
}

/// Counts traces by outcome.
fn count(outcome: &'static str, traces: u64) {
    crate::counter!("palisade.tail_sampling.traces", "outcome" => outcome).increment(traces);
}

/// Counts verdicts that did not reach an endpoint.
pub fn count_unsent(verdicts: usize) {
    count("unsent", verdicts as u64);
}

#[cfg(test)]
mod tests;

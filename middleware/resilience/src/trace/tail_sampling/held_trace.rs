//! Finished spans of one trace in one process, and the endpoints that the trace reached.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use opentelemetry::{SpanId, TraceId};
use parking_lot::{Mutex, MutexGuard};

use super::{ExemplarSlots, SendVerdict, TailSampling, Verdict, count_unsent, held_span::FinishedSpan};

/// Maximum number of held spans of a trace, of its calls and of its exemplars. More are left out.
const MAX_SPANS: usize = 64;

/// Trace whose export is undecided.
pub(in crate::trace) struct HeldTrace {
    policy: Arc<TailSampling>,
    id: TraceId,
    /// Calling span, if another process began the trace.
    caller: Option<SpanId>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: bool,
    /// Whether a part of the trace failed.
    failed: bool,
    /// Whether a state changed.
    changed: bool,
    spans: Vec<FinishedSpan>,
    /// Called endpoints by calling span. Weak: a held trace must not keep connections open.
    calls: Vec<(SpanId, Weak<dyn SendVerdict>)>,
    /// Measured values of the trace.
    exemplars: Vec<(Arc<dyn ExemplarSlots>, f64)>,
}

impl HeldTrace {
    pub(super) fn new(policy: Arc<TailSampling>, id: TraceId, caller: Option<SpanId>) -> Self {
        Self { policy, id, caller, state: Mutex::default() }
    }

    pub(in crate::trace) fn id(&self) -> TraceId {
        self.id
    }

    /// Returns whether this process began the trace and decides about its export.
    pub(in crate::trace) fn is_own(&self) -> bool {
        self.caller.is_none()
    }

    pub(super) fn is_named_by(&self, verdict: Verdict) -> bool {
        self.id == verdict.trace && self.caller == Some(verdict.caller)
    }

    /// Notes that a part of the trace failed.
    pub(super) fn mark_failed(&self) {
        self.state.lock().failed = true;
    }

    /// Returns whether a part of the trace failed.
    pub(in crate::trace) fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    /// Notes that a state changed.
    pub(in crate::trace) fn mark_changed(&self) {
        self.state.lock().changed = true;
    }

    /// Returns whether no call was made and no state changed.
    pub(in crate::trace) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.calls.is_empty() && !state.changed
    }

    /// Notes that `span` calls an endpoint, which gets the verdict too.
    pub(super) fn add_call(&self, span: SpanId, endpoint: &Arc<dyn SendVerdict>) {
        let mut state = self.state.lock();
        if state.calls.len() < MAX_SPANS {
            state.calls.push((span, Arc::downgrade(endpoint)));
        }
    }

    /// Adds a measured value.
    pub(super) fn add_exemplar(&self, slots: Arc<dyn ExemplarSlots>, value: f64) {
        let mut state = self.state.lock();
        if state.kept {
            drop(state);
            slots.set(self.id, value);
        } else if state.exemplars.len() < MAX_SPANS {
            state.exemplars.push((slots, value));
        }
    }

    /// Exports the trace if the budget of `reason` allows it.
    pub(in crate::trace) fn keep_for(&self, reason: &'static str) {
        if self.policy.admit(reason) {
            self.keep();
        }
    }

    /// Exports the finished spans, and each further span at its end.
    pub(in crate::trace) fn keep(&self) {
        let mut state = self.state.lock();
        state.kept = true;
        self.export(state);
    }

    /// Holds a finished span, or exports it if the trace is kept.
    pub(super) fn add_span(&self, span: FinishedSpan) {
        let mut state = self.state.lock();
        if state.spans.len() < MAX_SPANS {
            state.spans.push(span);
        }
        if state.kept {
            self.export(state);
        }
    }

    fn export(&self, mut state: MutexGuard<'_, State>) {
        let (spans, calls) = (std::mem::take(&mut state.spans), std::mem::take(&mut state.calls));
        let exemplars = std::mem::take(&mut state.exemplars);
        drop(state);
        for (slots, value) in exemplars {
            slots.set(self.id, value);
        }
        for (caller, endpoint) in calls {
            match endpoint.upgrade() {
                Some(endpoint) => endpoint.send(Verdict { trace: self.id, caller }),
                None => count_unsent(1),
            }
        }
        for span in spans {
            span.replay(self.id);
        }
    }
}

impl fmt::Debug for HeldTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldTrace").field("id", &self.id).finish_non_exhaustive()
    }
}

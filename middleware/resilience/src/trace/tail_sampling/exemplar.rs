//! Exemplars: which exported trace a measured value belongs to.

use std::sync::Arc;

use opentelemetry::{Context, TraceId, trace::TraceContextExt};

use super::held_span;
use crate::trace::sampling;

/// Keeps the last exemplar of each bucket of a histogram.
pub trait ExemplarSlots: Send + Sync {
    /// Replaces the exemplar of the bucket of `value`.
    fn set(&self, trace: TraceId, value: f64);
}

/// Offers the current trace as the exemplar of a value. It becomes one if the trace is exported,
/// now or later.
pub fn offer_exemplar<S: ExemplarSlots + 'static>(slots: &Arc<S>, value: f64) {
    let sampled = Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        if span.is_sampled() {
            return Some(span.trace_id());
        }
        if let Some(held) = held_span::of(context) {
            held.trace().add_exemplar(slots.clone(), value);
        }
        None
    });
    if let Some(trace) = sampled.filter(|_| sampling::is_exporting()) {
        slots.set(trace, value);
    }
}

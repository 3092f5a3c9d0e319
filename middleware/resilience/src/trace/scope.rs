//! Scope of a span: what is current while its work runs. The span is recorded now, held until the
//! outcome of its trace is known, or not recorded.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{self, Poll},
};

use opentelemetry::{
    Context, ContextGuard, SpanId,
    trace::{TraceContextExt, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use pin_project_lite::pin_project;
use tracing::{Span, span::Entered};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{
    FieldValue, propagation,
    sampling::{self, RootDecision},
    tail_sampling::{HeldSpan, HeldTrace, PARTIAL_FAILURE, StartSpan, current},
};

/// Scope of a span. The span ends on drop.
#[derive(Debug)]
pub struct Scope(Kind);

#[derive(Debug)]
enum Kind {
    /// Recorded or disabled span.
    Span(Span),
    /// Trace ids without a span.
    Ids(Context),
    Held(Held),
}

/// Held span, and the context of the work below it, if there is any.
#[derive(Debug)]
struct Held {
    span: Arc<HeldSpan>,
    context: Option<Context>,
    /// How the end of the span decides about its trace, for the root span of background work.
    root: Option<Root>,
}

/// Root span of background work.
#[derive(Debug, Clone, Copy)]
struct Root {
    sampled: bool,
    /// Whether the trace counts only if a call was made or a state changed.
    may_be_idle: bool,
}

/// Starts a span below the current one. `span` is called if the span is recorded, now or later.
pub fn start(span: impl FnOnce() -> Span + Send + 'static) -> Scope {
    Scope::child(span, true)
}

/// As [`start`], for a span without spans below it. Without a current span no trace begins.
pub fn start_leaf(span: impl FnOnce() -> Span + Send + 'static) -> Scope {
    if sampling::is_recorded() && Span::current().is_none() {
        return Scope::none();
    }
    Scope::child(span, false)
}

/// Starts the root span of a new trace, linked to the work that stored `traceparent`. It is
/// recorded exactly if that work was, or by the ratio; and if a part of it fails.
pub fn start_root(traceparent: Option<&str>, span: impl FnOnce() -> Span + Send + 'static) -> Scope {
    Scope::root(traceparent, false, span)
}

/// As [`start_root`], for work that is repeated until it is possible: there is a trace only if a
/// call was made or [`mark_changed`] was called. Without tail sampling there is always one.
pub fn start_repeated(traceparent: Option<&str>, span: impl FnOnce() -> Span + Send + 'static) -> Scope {
    Scope::root(traceparent, true, span)
}

/// Notes that the current work changed a state.
pub fn mark_changed() {
    if let Some(span) = current() {
        span.trace().mark_changed();
    }
}

impl Scope {
    /// Returns a scope without a span.
    pub fn none() -> Self {
        Self(Kind::Span(Span::none()))
    }

    pub(super) fn of_span(span: Span) -> Self {
        Self(Kind::Span(span))
    }

    pub(super) fn of_ids(ids: Context) -> Self {
        Self(Kind::Ids(ids))
    }

    /// Scope of a request in a held trace. `parent` has the span of the caller, if any.
    pub(super) fn of_held_request(trace: Arc<HeldTrace>, id: SpanId, parent: &Context, start: StartSpan) -> Self {
        let caller = parent.span().span_context().clone();
        let span = HeldSpan::begin(trace, (id, caller.span_id()), None, start);
        let context = span.attach_to(parent, caller.trace_state().clone());
        Self(Kind::Held(Held { span, context: Some(context), root: None }))
    }

    fn root(traceparent: Option<&str>, may_be_idle: bool, span: impl FnOnce() -> Span + Send + 'static) -> Self {
        let link = traceparent.and_then(propagation::parse);
        match sampling::decide_root(link.as_ref(), may_be_idle) {
            RootDecision::Traced(parent) => {
                let span = span();
                // Fails only without an OpenTelemetry subscriber.
                let _ = span.set_parent(parent);
                if let Some(link) = link {
                    span.add_link(link);
                }
                Self(Kind::Span(span))
            }
            RootDecision::NotRecorded(ids) => Self(Kind::Ids(ids)),
            RootDecision::Held { trace, sampled } => {
                let id = RandomIdGenerator::default().new_span_id();
                let span = HeldSpan::begin(trace, (id, SpanId::INVALID), link, Box::new(span));
                let context = span.attach_to(&Context::new(), TraceState::default());
                Self(Kind::Held(Held { span, context: Some(context), root: Some(Root { sampled, may_be_idle }) }))
            }
        }
    }

    fn child(span: impl FnOnce() -> Span + Send + 'static, has_children: bool) -> Self {
        if sampling::is_recorded() {
            return Self(Kind::Span(span()));
        }
        let Some(parent) = current() else { return Self::none() };
        let id = RandomIdGenerator::default().new_span_id();
        let span = HeldSpan::begin(parent.trace().clone(), (id, parent.id()), None, Box::new(span));
        let context = has_children.then(|| {
            let current = Context::current();
            let state = current.span().span_context().trace_state().clone();
            span.attach_to(&current, state)
        });
        Self(Kind::Held(Held { span, context, root: None }))
    }

    /// Makes the span current until the guard is dropped.
    pub fn enter(&self) -> ScopeGuard<'_> {
        match &self.0 {
            Kind::Span(span) => ScopeGuard::Span { _entered: span.enter() },
            Kind::Ids(ids) | Kind::Held(Held { context: Some(ids), .. }) => ScopeGuard::Ids { _attached: ids.clone().attach() },
            Kind::Held(_) => ScopeGuard::Outer,
        }
    }

    /// Calls `f` with the span as the current one.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        let _guard = self.enter();
        f()
    }

    /// Polls `future` with the span as the current one. The span ends with the future.
    pub fn instrument<F: Future>(self, future: F) -> Instrumented<F> {
        Instrumented { future, scope: self }
    }

    /// As [`Self::instrument`], for a span that continues after the future.
    pub async fn lend<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| self.run(|| future.as_mut().poll(cx))).await
    }

    /// Records a field that the span declares.
    pub fn record(&self, field: &'static str, value: impl Into<FieldValue>) {
        match &self.0 {
            Kind::Span(span) if span.is_disabled() => {}
            Kind::Span(span) => value.into().record_on(span, field),
            Kind::Held(held) => held.span.record(field, value.into()),
            Kind::Ids(_) => {}
        }
    }

    /// Returns whether the span is recorded or held.
    pub(super) fn is_observed(&self) -> bool {
        match &self.0 {
            Kind::Span(span) => !span.is_disabled(),
            Kind::Held(_) => true,
            Kind::Ids(_) => false,
        }
    }

    /// Returns the context of calls below the span.
    pub(super) fn context(&self) -> Context {
        match &self.0 {
            Kind::Span(span) => propagation::context_of(span),
            Kind::Ids(ids) | Kind::Held(Held { context: Some(ids), .. }) => ids.clone(),
            Kind::Held(_) => Context::current(),
        }
    }

    /// Returns the trace, if it is held and this process decides about its export.
    pub(super) fn own_held_trace(&self) -> Option<&Arc<HeldTrace>> {
        let Kind::Held(held) = &self.0 else { return None };
        Some(held.span.trace()).filter(|trace| trace.is_own())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.span.end();
        let (Some(Root { sampled, may_be_idle }), trace) = (self.root, self.span.trace()) else { return };
        if may_be_idle && trace.is_idle() {
            return;
        }
        if sampled {
            trace.keep();
        } else if trace.has_failed() {
            trace.keep_for(PARTIAL_FAILURE);
        }
    }
}

/// Guard: the span is current until dropped.
pub enum ScopeGuard<'a> {
    /// Entered span.
    Span {
        /// Exits the span on drop.
        _entered: Entered<'a>,
    },
    /// Attached trace ids.
    Ids {
        /// Detaches the ids on drop.
        _attached: ContextGuard,
    },
    /// Unchanged: the outer span stays current.
    Outer,
}

pin_project! {
    /// Future of [`Scope::instrument`].
    #[derive(Debug)]
    pub struct Instrumented<F> {
        #[pin]
        future: F,
        // Dropped last: the work may end spans below.
        scope: Scope,
    }
}

impl<F: Future> Future for Instrumented<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _guard = this.scope.enter();
        this.future.poll(cx)
    }
}

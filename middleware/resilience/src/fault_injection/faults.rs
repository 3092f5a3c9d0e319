//! Active fault rules, shared by the layer that applies them and the admin API that sets them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::Request;
use parking_lot::Mutex;

use super::{
    Config, Rule,
    decision::decide,
    rule::{CompiledRule, Effect, compile, method_name},
};
use crate::{
    context::Context,
    jitter::{self, RandomFn},
    method_table::{Method, MethodTable},
    metrics::as_f64,
    protocol::Protocol,
    rejection::{Rejection, reasons},
};

/// Fault rules of one server. Cheap to clone; clones share the rules.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    enabled: bool,
    methods: Vec<(String, &'static Method)>,
    draw: RandomFn,
    /// Whether there are rules: the only read of a request without fault injection.
    has_rules: AtomicBool,
    rules: ArcSwap<Vec<CompiledRule>>,
    update_lock: Mutex<()>,
    metrics: Metrics,
}

struct Metrics {
    active: metrics::Gauge,
    latency: metrics::Counter,
    error: metrics::Counter,
    abort: metrics::Counter,
    hang: metrics::Counter,
}

/// Fault of a request.
#[derive(Debug)]
pub(super) struct InjectedFault {
    /// Injected delay.
    pub(super) delay: Duration,
    /// Result after the delay; `None` for the handler's response.
    pub(super) kind: Option<FaultKind>,
}

/// Result that replaces the handler's response.
#[derive(Debug)]
pub(super) enum FaultKind {
    Error(Rejection),
    Abort,
    Hang,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("enabled", &self.0.enabled).field("rules", &self.0.rules.load()).finish_non_exhaustive()
    }
}

impl Faults {
    /// Creates an empty rule set for the server of `methods`. If disabled, rules cannot be set.
    pub fn new(config: &Config, protocol: Protocol, methods: &MethodTable) -> Self {
        let methods = methods.methods().filter(|method| !method.infrastructure).map(|method| (method_name(method, protocol), method));
        if config.enabled {
            tracing::warn!("fault injection enabled on the admin port");
        }
        Self::build(config.enabled, methods.collect(), jitter::random_unit)
    }

    /// Creates a disabled rule set.
    pub fn disabled() -> Self {
        Self::build(false, Vec::new(), jitter::random_unit)
    }

    pub(super) fn build(enabled: bool, methods: Vec<(String, &'static Method)>, draw: RandomFn) -> Self {
        let injected = |kind: &'static str| crate::counter!("palisade.faults.injected", "kind" => kind);
        let active = crate::gauge!("palisade.faults.active");
        // Incremented, never set: the servers of one process share the gauge.
        active.increment(0.0);
        let [latency, error, abort, hang] = ["latency", "error", "abort", "hang"].map(injected);
        let metrics = Metrics { active, latency, error, abort, hang };
        let (armed, rules, changing) = (AtomicBool::new(false), ArcSwap::default(), Mutex::default());
        Self(Arc::new(Inner { enabled, methods, draw, has_rules: armed, rules, update_lock: changing, metrics }))
    }

    /// Whether rules can be set.
    pub fn is_enabled(&self) -> bool {
        self.0.enabled
    }

    /// Returns the active rules.
    pub fn rules(&self) -> Vec<Rule> {
        self.0.rules.load().iter().map(|armed| armed.rule.clone()).collect()
    }

    /// Replaces all rules from the next request on. Fails with `validation_failed` and all
    /// violations, or with `not_found` if disabled.
    pub fn replace(&self, rules: Vec<Rule>) -> Result<(), Rejection> {
        if !self.0.enabled {
            return Err(Rejection::new(&reasons::NOT_FOUND, "fault injection is disabled"));
        }
        let new = Arc::new(compile(rules, &self.0.methods).map_err(Rejection::invalid)?);
        let _changing = self.0.update_lock.lock();
        let old = self.0.rules.swap(new.clone());
        self.0.has_rules.store(!new.is_empty(), Ordering::Release);
        self.0.metrics.active.increment(as_f64(new.len()) - as_f64(old.len()));
        let names: Vec<_> = new.iter().map(|armed| armed.rule.name.as_str()).collect();
        tracing::warn!(rules = names.len(), names = names.join(", "), "fault rules replaced");
        Ok(())
    }

    /// Returns the fault of `request`; `None` if no rule hits it.
    pub(super) fn decide<B>(&self, request: &Request<B>) -> Option<InjectedFault> {
        if !self.0.has_rules.load(Ordering::Relaxed) {
            return None;
        }
        let method = Context::of(request)?.method?;
        let rules = self.0.rules.load();
        let (delay, end) = decide(&rules, method, self.0.draw);
        if !delay.is_zero() {
            self.0.metrics.latency.increment(1);
            tracing::debug!(delay_ms = delay.as_millis(), "delay injected");
        }
        let end = end.and_then(|armed| self.kind_of(armed, request));
        (!delay.is_zero() || end.is_some()).then_some(InjectedFault { delay, kind: end })
    }

    fn kind_of<B>(&self, armed: &CompiledRule, request: &Request<B>) -> Option<FaultKind> {
        let rule = &armed.rule.name;
        match armed.effect {
            Effect::Latency { .. } => None,
            Effect::Error(reason) => {
                self.0.metrics.error.increment(1);
                let refusal = Rejection::new(reason, reason.title).with_source(format!("injected by fault rule {rule}"));
                // As the real rejections have it.
                let waits = [&reasons::OVERLOADED, &reasons::RATE_LIMITED].contains(&reason);
                Some(FaultKind::Error(if waits { refusal.with_retry_after(Duration::from_secs(1)) } else { refusal }))
            }
            Effect::Abort => {
                self.0.metrics.abort.increment(1);
                tracing::warn!(rule, "abort injected");
                // A response to HEAD has no body that could fail.
                let head = request.method() == http::Method::HEAD;
                Some(if head { FaultKind::Error(Rejection::internal(format!("injected by fault rule {rule}"))) } else { FaultKind::Abort })
            }
            Effect::Hang => {
                self.0.metrics.hang.increment(1);
                tracing::warn!(rule, "hang injected");
                Some(FaultKind::Hang)
            }
        }
    }
}

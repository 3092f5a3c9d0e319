//! Request log: one record at level `info` for every 5xx of an HTTP server, and for every refusal
//! of a method that is marked ([`Method::log_refusals`]). It has all that finds the request again:
//! its id, trace, route, caller, and the service that refused it.
//!
//! Successful requests and other client errors leave no record. A token bucket per code bounds the
//! records ([`LogBudget`]).

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use http::{Request, Response};
use opentelemetry::Context as TelemetryContext;
use tokio::time::Instant;

use crate::{
    context::{Context, Facts, RequestId},
    log_budget::LogBudget,
    method_table::Method,
    rejection::Rejection,
};

static BUDGET: LazyLock<LogBudget> = LazyLock::new(LogBudget::default);

/// Ids of the request that is being served, for every log record written on its behalf.
#[derive(Debug, Clone)]
pub struct CurrentRequest {
    /// `x-request-id`.
    pub request_id: RequestId,
    /// Route template or gRPC method, empty if unknown.
    pub route: &'static str,
}

impl CurrentRequest {
    /// Returns the ids of `request`, if it has a context.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let context = Context::of(request)?;
        Some(Self { request_id: context.request_id.clone(), route: context.method.map_or("", |method| method.path) })
    }

    /// Calls `show` with the ids of the request on whose behalf this code runs.
    pub fn with<T>(show: impl FnOnce(&Self) -> T) -> Option<T> {
        TelemetryContext::map_current(|context| context.get::<Self>().map(show))
    }
}

/// Refusal behind a response; in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    code: &'static str,
    /// Whether a called service refused, and not this one.
    by_upstream: bool,
    /// Cause of a server error.
    cause: Option<String>,
}

impl Refusal {
    pub(crate) fn of(rejection: &Rejection) -> Self {
        let reason = rejection.reason();
        let cause = reason.http.is_server_error().then(|| rejection.cause_text()).flatten();
        Self { code: reason.slug, by_upstream: rejection.is_by_upstream(), cause }
    }

    /// Returns the problem code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the service that refused: the last called one, or `self`.
    pub(crate) fn refused_by(&self, facts: Option<&Facts>) -> Cow<'static, str> {
        let upstream = facts.filter(|_| self.by_upstream).and_then(Facts::upstream);
        upstream.map_or("self".into(), |upstream| upstream.to_string().into())
    }
}

/// Record of one HTTP request, written when its outcome is known.
#[derive(Debug)]
pub(crate) struct RequestLog {
    ids: CurrentRequest,
    method: Option<&'static Method>,
    pub(crate) facts: Arc<Facts>,
    refusal: Option<Refusal>,
    started: Instant,
}

impl RequestLog {
    /// Begins the record of a request. `None` without a context and for infrastructure.
    pub(crate) fn begin<B>(request: &mut Request<B>) -> Option<Self> {
        let ids = CurrentRequest::of(request)?;
        let context = request.extensions_mut().get_mut::<Context>()?;
        if context.method.is_some_and(|method| method.infrastructure) {
            return None;
        }
        let facts = context.facts.insert(Arc::default()).clone();
        Some(Self { ids, method: context.method, facts, refusal: None, started: Instant::now() })
    }

    /// Notes the refusal behind the response.
    pub(crate) fn record_head<R>(&mut self, response: &Response<R>) {
        self.refusal = response.extensions().get().cloned();
    }

    /// Writes the record, if the outcome is worth one.
    pub(crate) fn finish(&self, status: u16) {
        let refused = (400..499).contains(&status) && self.method.is_some_and(|method| method.log_refusals);
        if status < 500 && !refused {
            return;
        }
        let code = self.refusal.as_ref().map_or("truncated", |refusal| refusal.code);
        let Some(left_out) = BUDGET.admit(code) else { return };
        let upstream = self.facts.upstream();
        let refused_by = self.refusal.as_ref().map_or("self".into(), |refusal| refusal.refused_by(Some(&self.facts)));
        let subject = self.facts.principal().map(|principal| principal.subject.to_string());
        tracing::info!(
            request_id = &*self.ids.request_id,
            route = self.ids.route,
            http_method = self.method.map_or("", |method| method.verb),
            status,
            code,
            refused_by = &*refused_by,
            upstream = upstream.as_deref(),
            subject = subject.as_deref(),
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            cause = self.refusal.as_ref().and_then(|refusal| refusal.cause.as_deref()),
            left_out = (left_out > 0).then_some(left_out),
            "request failed"
        );
    }
}

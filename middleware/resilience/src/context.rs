//! Request context: created once at the edge of the process, used by all layers and by outbound
//! calls.

#[cfg(feature = "opentelemetry")]
mod facts;
mod principal;
mod request_id;
mod subject;

use std::{future::Future, net::IpAddr, sync::Arc};

use http::Request;
use tokio::{task::futures::TaskLocalFuture, time::Instant};

use crate::{method_table::Method, priority::Priority, rejection::Rejection, time_limit::TimeLimit};

#[cfg(feature = "opentelemetry")]
pub use facts::Facts;
pub use principal::Principal;
pub use request_id::RequestId;
pub use subject::{InvalidSubject, MAX_PREFIX_CHARS, MAX_SUB_CHARS, MAX_SUBJECT_CHARS, Subject};

/// Context of a request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// `x-request-id` of the caller if valid, else a random id.
    pub request_id: RequestId,
    /// Deadline of the request. Outbound calls get the remaining time. Streams have one only if the
    /// caller set it.
    pub deadline: Option<TimeLimit>,
    /// Address of the client, behind trusted proxies the one that they report. `None` outside a
    /// server and for peers without an address.
    pub client_address: Option<IpAddr>,
    /// Caller identity, set after the token was verified.
    pub principal: Option<Arc<Principal>>,
    /// Matching entry of the method table. `None` for unknown paths.
    pub method: Option<&'static Method>,
    /// Priority of the request: from the method table, or set by an internal caller. Propagated to
    /// outbound calls.
    pub priority: Priority,
    /// `grpc-previous-rpc-attempts` of the inbound call (gRFC A6). Above 0 the caller is retrying
    /// already, so this service does not.
    pub previous_attempts: u32,
    /// Facts for the record of the request, if it gets one.
    #[cfg(feature = "opentelemetry")]
    pub facts: Option<Arc<Facts>>,
}

impl Context {
    /// Creates a context for work without a request, such as a resumed saga.
    pub fn background() -> Self {
        Self {
            request_id: RequestId::random(),
            deadline: None,
            client_address: None,
            principal: None,
            method: None,
            priority: Priority::Default,
            previous_attempts: 0,
            #[cfg(feature = "opentelemetry")]
            facts: None,
        }
    }

    /// Sets the principal.
    #[must_use]
    pub fn on_behalf_of(mut self, principal: Arc<Principal>) -> Self {
        self.principal = Some(principal);
        self
    }

    /// Sets the authenticated caller of the request.
    pub fn authenticate(&mut self, principal: Arc<Principal>) {
        #[cfg(feature = "opentelemetry")]
        if let Some(facts) = &self.facts {
            facts.set_principal(&principal);
        }
        self.principal = Some(principal);
    }

    /// Notes the last called service for the record of the request.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn note_upstream(&self, target: &Arc<str>) {
        if let Some(facts) = &self.facts {
            facts.set_upstream(target);
        }
    }

    /// Shortens the deadline to a time that this process chose: the earlier of the two applies.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        let now = Instant::now();
        let limit = TimeLimit::operator(now, deadline.saturating_duration_since(now));
        self.deadline = Some(self.deadline.map_or(limit, |own| own.earlier(limit)));
        self
    }

    /// Returns whether the response is a stream ([`Method::streaming`]).
    pub fn is_stream(&self) -> bool {
        self.method.is_some_and(|method| method.streaming)
    }

    /// Returns the context that the outer layers added to the request.
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get::<Self>()
    }

    /// Returns the entry of the method table that the request matches.
    pub fn method_of<B>(request: &Request<B>) -> Option<&'static Method> {
        Self::of(request).and_then(|context| context.method)
    }
}

tokio::task_local! {
    static CURRENT: Context;
}

/// Returns the context of the running task, if it serves a request.
pub fn current() -> Option<Context> {
    CURRENT.try_with(Clone::clone).ok()
}

/// As [`current`], without a clone.
pub fn with_current<T>(at: impl FnOnce(&Context) -> T) -> Option<T> {
    CURRENT.try_with(at).ok()
}

/// Returns the principal of the current request. Fails only outside a non-public method, which
/// requires one.
pub fn current_principal() -> Result<Arc<Principal>, Rejection> {
    let principal = with_current(|context| context.principal.clone()).flatten();
    principal.ok_or_else(|| Rejection::internal("a non-public method was reached without a principal"))
}

/// Runs `future` with `context` as the current context.
pub fn scope<F: Future>(context: Context, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, future)
}

/// Runs `future` in the current context as work that goes on after the response to its request. Its
/// calls keep the deadline, but count their timeouts themselves: the response came in time.
pub fn outlive_request<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let mut context = current().unwrap_or_else(Context::background);
    context.deadline = context.deadline.map(TimeLimit::outliving_request);
    scope(context, future)
}

/// As [`scope`], with a nameable future type.
pub(crate) fn enter<F: Future>(context: Context, future: F) -> TaskLocalFuture<Context, F> {
    CURRENT.scope(context, future)
}

/// Runs `future` with `context`, if any. Propagates a context to another task.
pub(crate) async fn propagate_with<F: Future>(context: Option<Context>, future: F) -> F::Output {
    match context {
        Some(context) => CURRENT.scope(context, future).await,
        None => future.await,
    }
}

/// As [`propagate_with`] with the context at the time of the call, not of the first poll.
pub(crate) fn propagate<F: Future>(future: F) -> impl Future<Output = F::Output> {
    propagate_with(current(), future)
}

//! What is known of the request at hand: made once at the edge of the process, found by every layer and by calls that go out.

mod request_id;

use std::{future::Future, sync::Arc};

use http::Request;
use tokio::{task::futures::TaskLocalFuture, time::Instant};

use crate::{auth::Principal, method_table::Method, priority::Priority, rejection::Rejection};

pub use request_id::RequestId;

/// The request at hand. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// The caller's `x-request-id` if it is valid, else a new one.
    pub request_id: RequestId,
    /// When the caller stops waiting. Every hop gets what is left of it. A stream has one only if its caller set it.
    pub deadline: Option<Instant>,
    /// Who asks; set once the token was verified.
    pub principal: Option<Arc<Principal>>,
    /// The entry of the method table that the request matched; `None` for paths nobody serves.
    pub method: Option<&'static Method>,
    /// How much it matters: as the method table has it, or as one of our own services says. Every hop is told.
    pub priority: Priority,
    /// `grpc-previous-rpc-attempts` of the incoming call (gRFC A6): above 0 the caller is retrying already, so we do not.
    pub previous_attempts: u32,
}

impl Context {
    /// A context for work that no request asked for, such as a resumed saga.
    pub fn background() -> Self {
        Self {
            request_id: RequestId::random(),
            deadline: None,
            principal: None,
            method: None,
            priority: Priority::Default,
            previous_attempts: 0,
        }
    }

    /// The same context on behalf of `principal`.
    #[must_use]
    pub fn on_behalf_of(mut self, principal: Arc<Principal>) -> Self {
        self.principal = Some(principal);
        self
    }

    /// The same context with less time: the nearer of the two deadlines counts.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |own| own.min(deadline)));
        self
    }

    /// Whether the answer is a stream ([`Method::streaming`]).
    pub fn is_stream(&self) -> bool {
        self.method.is_some_and(|method| method.streaming)
    }

    /// The context that the outer layers put into the request.
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get::<Self>()
    }
}

tokio::task_local! {
    static CURRENT: Context;
}

/// The context of the running task, if it works for a request.
pub fn current() -> Option<Context> {
    CURRENT.try_with(Clone::clone).ok()
}

/// As [`current`], without a copy of it.
pub(crate) fn with_current<T>(at: impl FnOnce(&Context) -> T) -> Option<T> {
    CURRENT.try_with(at).ok()
}

/// Who asked for what is running; a method that is not public has been reached by nobody else.
pub fn current_principal() -> Result<Arc<Principal>, Rejection> {
    let principal = with_current(|context| context.principal.clone()).flatten();
    principal.ok_or_else(|| Rejection::internal("a method that is not public was reached without a principal"))
}

/// Runs `future` with `context` as the current one.
pub fn scope<F: Future>(context: Context, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, future)
}

/// As [`scope`], with a future that has a name.
pub(crate) fn enter<F: Future>(context: Context, future: F) -> TaskLocalFuture<Context, F> {
    CURRENT.scope(context, future)
}

/// Takes the present context along into a future that will run in another task.
pub(crate) async fn propagate_with<F: Future>(context: Option<Context>, future: F) -> F::Output {
    match context {
        Some(context) => CURRENT.scope(context, future).await,
        None => future.await,
    }
}

/// As [`keep_with`] with the context of now, not of the first poll.
pub(crate) fn propagate<F: Future>(future: F) -> impl Future<Output = F::Output> {
    propagate_with(current(), future)
}

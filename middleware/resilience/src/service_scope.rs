//! Service scope: which service of a process owns a metric.
//!
//! A metric belongs to the service whose scope creates its handle, including spawned tasks. Handles
//! created outside any scope (runtime, span export) are shared by all services.

use std::future::Future;

use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static SERVICE: Option<&'static str>;
}

/// Runs `future` in the scope of `service`: metrics created by it and its tasks belong to that
/// service.
pub fn with_service<F: Future>(service: &'static str, future: F) -> impl Future<Output = F::Output> {
    SERVICE.scope(Some(service), future)
}

/// Propagates the current service scope into a future for another task.
pub fn propagate<F: Future>(future: F) -> TaskLocalFuture<Option<&'static str>, F> {
    SERVICE.scope(current_service(), future)
}

/// Calls `f` in the scope of `service`.
pub(crate) fn in_service<T>(service: Option<&'static str>, f: impl FnOnce() -> T) -> T {
    SERVICE.sync_scope(service, f)
}

/// Service that owns the metrics created now.
pub fn current_service() -> Option<&'static str> {
    SERVICE.try_with(|service| *service).ok().flatten()
}

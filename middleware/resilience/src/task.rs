//! Tasks that outlive their request: they keep its span, its context and its metrics service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{runtime::Handle, task::JoinHandle};
use tracing::Instrument;

use crate::{context, metrics};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Spawns a task with the current span (or trace id, if untraced), request context and metrics
/// service.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    // Boxed, so that the task is compiled once per output, not per future.
    let future: Boxed<F::Output> = Box::pin(future);
    #[expect(clippy::disallowed_methods, reason = "the only place that spawns: propagates span and context")]
    tokio::spawn(in_current_context(future))
}

/// Binds `future` to the current span, request context and metrics service, for a task spawned
/// elsewhere.
pub fn in_current_context<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
    let future = context::propagate(future).in_current_span();
    #[cfg(feature = "opentelemetry")]
    let future = opentelemetry::context::FutureExt::with_current_context(future);
    metrics::propagate(future)
}

/// Runs `future` to completion once it has been polled: if the returned future is dropped, the rest
/// runs in a task.
///
/// A server drops its handler at any await when the client disconnects, which would interrupt a
/// write. No task is used while the caller waits, because waking through a task costs more than
/// most of the awaited work.
pub fn run_to_completion<F>(future: F) -> RunToCompletion<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    RunToCompletion { work: Some(Box::pin(in_current_context(future))), runtime: None }
}

/// Future of [`run_to_completion`].
pub struct RunToCompletion<T: Send + 'static> {
    work: Option<Boxed<T>>,
    /// Runtime of the first poll, which runs the rest.
    runtime: Option<Handle>,
}

impl<T: Send + 'static> fmt::Debug for RunToCompletion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunToCompletion").field("started", &self.runtime.is_some()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        this.runtime.get_or_insert_with(Handle::current);
        // Taken out during the poll, so that work that panics is not resumed.
        let Some(mut work) = this.work.take() else { unreachable!("future polled after completion") };
        let outcome = work.as_mut().poll(cx);
        if outcome.is_pending() {
            this.work = Some(work);
        }
        outcome
    }
}

impl<T: Send + 'static> Drop for RunToCompletion<T> {
    fn drop(&mut self) {
        if let (Some(runtime), Some(work)) = (&self.runtime, self.work.take()) {
            drop(runtime.spawn(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn run_to_completion_survives_dropped_caller() {
        let (go, wait) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel::<()>();
        let mut call = Box::pin(run_to_completion(async move {
            wait.await.unwrap();
            done.send(()).unwrap();
        }));
        assert!(futures_util::poll!(&mut call).is_pending());
        drop(call);
        go.send(()).unwrap();
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn run_to_completion_spawns_only_after_drop() {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let (go, wait) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel();
        let context = crate::context::Context::background();
        let id = context.request_id.clone();
        let work = async move {
            wait.await.unwrap();
            done.send(crate::context::current().map(|context| context.request_id)).unwrap();
        };
        let mut call = Box::pin(crate::context::scope(context, async { run_to_completion(work).await }));
        assert!(futures_util::poll!(&mut call).is_pending());
        assert_eq!(tasks(), before);
        drop(call);
        assert_eq!(tasks(), before + 1);
        go.send(()).unwrap();
        assert_eq!(finished.await.unwrap(), Some(id));
    }

    #[tokio::test]
    async fn unpolled_or_panicked_work_is_not_resumed() {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        drop(run_to_completion(async { unreachable!("never polled") }));
        let panics = std::panic::AssertUnwindSafe(run_to_completion(async { panic!("test panic") }));
        assert!(futures_util::FutureExt::catch_unwind(panics).await.is_err());
        assert_eq!(tasks(), before);
    }
}

//! Work that outlives the request that asked for it, with the request's span and context kept, and whose metrics it counts in.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use opentelemetry::context::FutureExt;
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{context, metrics};

/// Starts `future` in a task of its own, under the present span (or trace id, if it is not traced), request context and service.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns: it keeps the span and the context")]
    tokio::spawn(in_current_context(future))
}

/// Takes the present span, request context and service along into a future that someone else will spawn.
pub fn in_current_context<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
    metrics::propagate(context::propagate(future).in_current_span().with_current_context())
}

/// Runs `future` to its end, once it has begun, whatever happens to the caller: what is left of it when the returned future is dropped goes
/// on in a task of its own.
///
/// A server's handler is dropped when its client goes away, at any await; a write that is half done then would stay half done. While nobody
/// goes away there is no other task: to be woken by one costs more than most of what is waited for.
pub fn run_to_completion<F>(future: F) -> RunToCompletion<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    RunToCompletion { work: Some(Box::pin(in_current_context(future))), runtime: None }
}

/// The future of [`detached`].
pub struct RunToCompletion<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// Where it was begun, and goes on.
    runtime: Option<Handle>,
}

impl<T: Send + 'static> fmt::Debug for RunToCompletion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("begun", &self.runtime.is_some()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        this.runtime.get_or_insert_with(Handle::current);
        // Taken out meanwhile: what panics does not go on.
        let Some(mut work) = this.work.take() else { unreachable!("polled after it was ready") };
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

/// Does `work` at once and then again and again, each time `pause` after the last, until `stop`. The longer it takes the less often it is
/// done, so that it never has more than a twentieth of the time.
pub async fn run_with_duty_cycle<F: Future<Output = ()>>(pause: Duration, stop: CancellationToken, mut work: impl FnMut() -> F) {
    const PAUSE_FACTOR: u32 = 19;
    loop {
        let started = Instant::now();
        if stop.run_until_cancelled(work()).await.is_none() {
            return;
        }
        let pause = pause.max(started.elapsed() * PAUSE_FACTOR);
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn detached_work_goes_on_when_the_caller_is_dropped() {
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
    async fn detached_work_has_no_task_while_its_caller_waits_and_keeps_his_context_when_he_is_gone() {
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
    async fn detached_work_that_has_not_begun_or_has_panicked_does_not_go_on() {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        drop(run_to_completion(async { unreachable!("nobody began it") }));
        let panics = std::panic::AssertUnwindSafe(run_to_completion(async { panic!("on purpose") }));
        assert!(futures_util::FutureExt::catch_unwind(panics).await.is_err());
        assert_eq!(tasks(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_done_less_often_and_stops_at_once() {
        let (stop, started) = (CancellationToken::new(), Instant::now());
        let (mut durations, mut run_times) = ([1, 0, 10, 0, 1_000].into_iter(), Vec::new());
        let stopped = stop.clone();
        let work = || {
            run_times.push(started.elapsed().as_secs());
            let takes = durations.next().unwrap();
            if takes == 1_000 {
                stopped.cancel();
            }
            tokio::time::sleep(Duration::from_secs(takes))
        };
        run_with_duty_cycle(Duration::from_mins(1), stop, work).await;
        assert_eq!(run_times, [0, 61, 121, 321, 381]);
        assert_eq!(started.elapsed().as_secs(), 381);
    }
}

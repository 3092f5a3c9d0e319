//! Work that outlives the request that asked for it, with the request's span and context kept, and whose metrics it counts in.

use std::{future::Future, panic, time::Duration};

use opentelemetry::context::FutureExt;
use tokio::{
    task::{JoinError, JoinHandle},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{context, metrics};

/// The task ended without a result because the runtime is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the runtime shut down before the work was done")]
pub struct Aborted;

/// Starts `future` in a task of its own, under the present span (or trace id, if it is not traced), request context and service.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns: it keeps the span and the context")]
    tokio::spawn(keep(future))
}

/// Takes the present span, request context and service along into a future that someone else will spawn.
pub fn keep<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
    metrics::keep(context::keep(future).in_current_span().with_current_context())
}

/// Runs `future` to its end whatever happens to the caller: dropping the returned future drops only the wait.
///
/// A server's handler is dropped when its client goes away, at any await; a write that is half done then would stay half done.
/// A panic of the work goes on in the caller.
pub async fn detached<F>(future: F) -> Result<F::Output, Aborted>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn(future).await.map_err(|error: JoinError| match error.try_into_panic() {
        Ok(panic) => panic::resume_unwind(panic),
        Err(_) => Aborted,
    })
}

/// Does `work` at once and then again and again, each time `pause` after the last, until `stop`. The longer it takes the less often it is
/// done, so that it never has more than a twentieth of the time.
pub async fn at_leisure<F: Future<Output = ()>>(pause: Duration, stop: CancellationToken, mut work: impl FnMut() -> F) {
    const PAUSES: u32 = 19;
    loop {
        let started = Instant::now();
        if stop.run_until_cancelled(work()).await.is_none() {
            return;
        }
        let pause = pause.max(started.elapsed() * PAUSES);
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
        let mut call = Box::pin(detached(async move {
            wait.await.unwrap();
            done.send(()).unwrap();
        }));
        assert!(futures_util::poll!(&mut call).is_pending());
        drop(call);
        go.send(()).unwrap();
        finished.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_done_less_often_and_stops_at_once() {
        let (stop, started) = (CancellationToken::new(), Instant::now());
        let (mut takes, mut at) = ([1, 0, 10, 0, 1_000].into_iter(), Vec::new());
        let stopped = stop.clone();
        let work = || {
            at.push(started.elapsed().as_secs());
            let takes = takes.next().unwrap();
            if takes == 1_000 {
                stopped.cancel();
            }
            tokio::time::sleep(Duration::from_secs(takes))
        };
        at_leisure(Duration::from_mins(1), stop, work).await;
        assert_eq!(at, [0, 61, 121, 321, 381]);
        assert_eq!(started.elapsed().as_secs(), 381);
    }
}

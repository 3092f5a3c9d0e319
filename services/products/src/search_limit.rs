//! Bulkhead of searches: few at a time, so that they never take the store from other requests.

use std::{future::Future, sync::Arc, time::Duration};

use palisade_middleware::{
    rejection::{Rejection, reasons},
    task,
};
use tokio::{sync::Semaphore, time::timeout};

/// `Retry-After` of a rejected search.
const RETRY: Duration = Duration::from_secs(1);

/// Limit of concurrent searches of this process. Clones share it.
#[derive(Debug, Clone)]
pub struct SearchLimit {
    permits: Arc<Semaphore>,
    max_wait: Duration,
}

impl SearchLimit {
    /// Creates a limit of `max_concurrent` searches. Further ones wait for up to `max_wait`.
    pub fn new(max_concurrent: usize, max_wait: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(max_concurrent)), max_wait }
    }

    /// Runs a search, or rejects it if no permit becomes free in time. A search holds its permit
    /// until it ends, even if its caller is cancelled: the store works on regardless.
    pub async fn run<T: Send + 'static>(&self, search: impl Future<Output = T> + Send + 'static) -> Result<T, Rejection> {
        let acquire = timeout(self.max_wait, self.permits.clone().acquire_owned());
        let Ok(Ok(permit)) = acquire.await else {
            return Err(Rejection::new(&reasons::OVERLOADED, "too many searches at the same time").with_retry_after(RETRY));
        };
        let search = async move {
            let result = search.await;
            drop(permit);
            result
        };
        Ok(task::run_to_completion(search).await)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, poll};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn excess_search_waits_then_is_rejected() {
        let limit = SearchLimit::new(1, Duration::from_millis(250));
        let (finish, finished) = oneshot::channel::<()>();
        let mut first = Box::pin(limit.run(finished));
        assert!(poll!(&mut first).is_pending());
        let second = limit.run(async {}).await;
        assert_eq!(second.unwrap_err().reason(), &reasons::OVERLOADED);
        let mut third = Box::pin(limit.run(async { 3 }));
        assert!(poll!(&mut third).is_pending());
        finish.send(()).unwrap();
        assert!(first.await.unwrap().is_ok());
        assert_eq!(third.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_search_keeps_its_permit() {
        let limit = SearchLimit::new(1, Duration::from_millis(250));
        let (finish, finished) = oneshot::channel::<()>();
        let mut cancelled = Box::pin(limit.run(finished));
        assert!(poll!(&mut cancelled).is_pending());
        drop(cancelled);
        assert!(limit.run(async {}).await.is_err(), "the store still works on the search");
        finish.send(()).unwrap();
        tokio::task::yield_now().await;
        assert!(limit.run(async {}).now_or_never().is_some_and(|result| result.is_ok()));
    }
}

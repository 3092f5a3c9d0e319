//! Bulkhead of searches: few at a time, so that they never take the store from other requests.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use palisade_middleware::{
    caller::CallerKey,
    rejection::{Rejection, reasons},
    task,
};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout};

/// `Retry-After` of a rejected search.
const RETRY: Duration = Duration::from_secs(1);
/// Failure origin of a search that found no permit. It differs from the name of the service, so the
/// circuit breakers and retry budgets of clients do not count it: products itself works.
const ORIGIN: &str = "search";

/// Limit of concurrent searches of this process. Clones share it.
#[derive(Debug, Clone)]
pub struct SearchLimit {
    permits: Arc<Semaphore>,
    max_wait: Duration,
    callers: Arc<Callers>,
}

/// Searches of each caller, running or waiting. Only callers with searches have an entry.
#[derive(Debug)]
struct Callers {
    max: usize,
    searches: Mutex<HashMap<CallerKey, usize>>,
}

/// Place of a search among those of its caller, returned when dropped.
#[derive(Debug)]
struct Place {
    callers: Arc<Callers>,
    caller: CallerKey,
}

impl SearchLimit {
    /// Creates a limit of `max_concurrent` searches. Further ones wait for up to `max_wait`. A
    /// caller has at most twice `max_concurrent` searches, running or waiting, so that those of
    /// others need not wait for long.
    pub fn new(max_concurrent: usize, max_wait: Duration) -> Self {
        let callers = Arc::new(Callers { max: max_concurrent.saturating_mul(2), searches: Mutex::default() });
        Self { permits: Arc::new(Semaphore::new(max_concurrent)), max_wait, callers }
    }

    /// Runs a search, or rejects it if `caller` has too many or no permit becomes free in time. A
    /// search holds its permit until it ends, even if its caller is cancelled: the store works on
    /// regardless.
    pub async fn run<T: Send + 'static>(
        &self,
        caller: CallerKey,
        search: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Rejection> {
        let place = self.callers.enter(caller)?;
        let acquire = timeout(self.max_wait, self.permits.clone().acquire_owned());
        let Ok(Ok(permit)) = acquire.await else {
            let rejection = Rejection::new(&reasons::OVERLOADED, "too many searches at the same time");
            return Err(rejection.with_retry_after(RETRY).with_origin(ORIGIN));
        };
        let search = async move {
            let result = search.await;
            drop((permit, place));
            result
        };
        Ok(task::run_to_completion(search).await)
    }
}

impl Callers {
    fn enter(self: &Arc<Self>, caller: CallerKey) -> Result<Place, Rejection> {
        let mut searches = self.searches.lock();
        let own = searches.entry(caller).or_default();
        if *own >= self.max {
            let rejection = Rejection::new(&reasons::RATE_LIMITED, "too many searches of this caller at the same time");
            return Err(rejection.with_retry_after(RETRY));
        }
        *own += 1;
        Ok(Place { callers: self.clone(), caller })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut searches = self.callers.searches.lock();
        if let Some(own) = searches.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                searches.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, poll};
    use tokio::sync::oneshot;

    use super::*;

    fn caller(number: u64) -> CallerKey {
        CallerKey::of_value(number)
    }

    #[tokio::test(start_paused = true)]
    async fn excess_search_waits_then_is_rejected() {
        let limit = SearchLimit::new(1, Duration::from_millis(250));
        let (finish, finished) = oneshot::channel::<()>();
        let mut first = Box::pin(limit.run(caller(1), finished));
        assert!(poll!(&mut first).is_pending());
        let second = limit.run(caller(1), async {}).await;
        assert_eq!(second.unwrap_err().reason(), &reasons::OVERLOADED);
        let mut third = Box::pin(limit.run(caller(1), async { 3 }));
        assert!(poll!(&mut third).is_pending());
        finish.send(()).unwrap();
        assert!(first.await.unwrap().is_ok());
        assert_eq!(third.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_search_keeps_its_permit() {
        let limit = SearchLimit::new(1, Duration::from_millis(250));
        let (finish, finished) = oneshot::channel::<()>();
        let mut cancelled = Box::pin(limit.run(caller(1), finished));
        assert!(poll!(&mut cancelled).is_pending());
        drop(cancelled);
        assert!(limit.run(caller(1), async {}).await.is_err(), "the store still works on the search");
        finish.send(()).unwrap();
        tokio::task::yield_now().await;
        assert!(limit.run(caller(1), async {}).now_or_never().is_some_and(|result| result.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn caller_with_many_searches_leaves_room_for_others() {
        let limit = SearchLimit::new(1, Duration::from_millis(250));
        let (finish, finished) = oneshot::channel::<()>();
        let mut running = Box::pin(limit.run(caller(1), finished));
        let mut waiting = Box::pin(limit.run(caller(1), async {}));
        assert!(poll!(&mut running).is_pending() && poll!(&mut waiting).is_pending());
        let third = limit.run(caller(1), async {}).await.unwrap_err();
        assert_eq!(third.reason(), &reasons::RATE_LIMITED);
        let mut other = Box::pin(limit.run(caller(2), async { 2 }));
        assert!(poll!(&mut other).is_pending());
        finish.send(()).unwrap();
        assert!(running.await.is_ok() && waiting.await.is_ok());
        assert_eq!(other.await.unwrap(), 2);
        assert!(limit.callers.searches.lock().is_empty());
    }
}

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use palisade_resilience::task;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    RolledBack,
    UnknownOutcome,
    Full,
    Interrupted,
}

impl BatchError for Failure {
    fn is_rolled_back(&self) -> bool {
        *self == Self::RolledBack
    }

    fn copy(&self) -> Self {
        *self
    }

    fn queue_full() -> Self {
        Self::Full
    }

    fn interrupted() -> Self {
        Self::Interrupted
    }
}

/// Batches start one by one, however slow the machine is.
const LIMITS: Limits = Limits { slow_after: Duration::MAX, ..Limits::DEFAULT };

/// Store whose commits wait for a permit of the test. Items in `bad` fail their batch.
struct Store {
    started: mpsc::UnboundedSender<Vec<u32>>,
    commits: Semaphore,
    committed: Mutex<Vec<u32>>,
    bad: HashSet<u32>,
    error: Failure,
    panics: AtomicUsize,
}

impl BatchWriter for Arc<Store> {
    type Item = u32;
    type Output = u32;
    type Error = Failure;

    async fn write(&self, items: &[u32]) -> Result<Vec<Result<u32, Failure>>, Failure> {
        self.started.send(items.to_vec()).unwrap();
        self.commits.acquire().await.unwrap().forget();
        assert!(self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err(), "test panic");
        if items.iter().any(|item| self.bad.contains(item)) {
            return Err(self.error);
        }
        self.committed.lock().extend(items);
        Ok(items.iter().map(|item| Ok(item * 10)).collect())
    }
}

fn store(bad: &[u32], error: Failure) -> (Arc<Store>, mpsc::UnboundedReceiver<Vec<u32>>) {
    let (started, batches) = mpsc::unbounded_channel();
    let store = Store {
        started,
        commits: Semaphore::new(0),
        committed: Mutex::default(),
        bad: bad.iter().copied().collect(),
        error,
        panics: AtomicUsize::new(0),
    };
    (Arc::new(store), batches)
}

/// Starts a commit that holds up the queue, so that further writes meet in one batch.
async fn occupy(
    writes: &GroupCommit<Arc<Store>>,
    batches: &mut mpsc::UnboundedReceiver<Vec<u32>>,
) -> impl Future<Output = Result<u32, Failure>> + use<> {
    let writes = writes.clone();
    let first = task::spawn(async move { writes.write(0).await });
    assert_eq!(batches.recv().await.unwrap(), [0]);
    async { first.await.unwrap() }
}

/// Queues the writes of `items`, in order, without waiting for them.
fn queue(writes: &GroupCommit<Arc<Store>>, items: impl IntoIterator<Item = u32>) -> Vec<impl Future<Output = Result<u32, Failure>>> {
    let queued = items.into_iter().map(|item| {
        let writes = writes.clone();
        let mut write = Box::pin(async move { writes.write(item).await });
        let polled = (&mut write).now_or_never();
        async move {
            match polled {
                Some(result) => result,
                None => write.await,
            }
        }
    });
    queued.collect()
}

#[tokio::test]
async fn lone_write_starts_at_once() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    store.commits.add_permits(2);
    let writes = GroupCommit::new("test", store, LIMITS);
    assert_eq!(writes.write(7).await, Ok(70));
    assert_eq!(writes.write(8).await, Ok(80));
    assert_eq!((batches.recv().await.unwrap(), batches.recv().await.unwrap()), (vec![7], vec![8]));
}

#[tokio::test]
async fn waiting_writes_share_a_commit_in_order() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    let writes = GroupCommit::new("test", store.clone(), Limits { max_batch: 3, ..LIMITS });
    let first = occupy(&writes, &mut batches).await;
    let waiting = queue(&writes, 1..6);
    store.commits.add_permits(3);
    assert_eq!(first.await, Ok(0));
    assert_eq!(join_all(waiting).await, (1..6).map(|item| Ok(item * 10)).collect::<Vec<_>>());
    assert_eq!((batches.recv().await.unwrap(), batches.recv().await.unwrap()), (vec![1, 2, 3], vec![4, 5]));
}

#[tokio::test]
async fn write_is_acknowledged_only_after_its_commit() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    let writes = GroupCommit::new("test", store.clone(), LIMITS);
    let first = occupy(&writes, &mut batches).await;
    let mut waiting = join_all(queue(&writes, [1]));
    store.commits.add_permits(1);
    assert_eq!(first.await, Ok(0));
    // The second batch has started and not committed.
    assert_eq!(batches.recv().await.unwrap(), [1]);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(*store.committed.lock(), [0]);
    store.commits.add_permits(1);
    assert_eq!(waiting.await, [Ok(10)]);
}

#[tokio::test]
async fn one_bad_item_fails_alone() {
    let (store, mut batches) = store(&[2], Failure::RolledBack);
    let writes = GroupCommit::new("test", store.clone(), LIMITS);
    let first = occupy(&writes, &mut batches).await;
    let waiting = queue(&writes, 1..4);
    store.commits.add_permits(10);
    assert_eq!(first.await, Ok(0));
    assert_eq!(join_all(waiting).await, [Ok(10), Err(Failure::RolledBack), Ok(30)]);
    assert_eq!(*store.committed.lock(), [0, 1, 3]);
}

#[tokio::test]
async fn unknown_outcome_fails_the_batch_and_is_not_repeated() {
    let (store, mut batches) = store(&[2], Failure::UnknownOutcome);
    let writes = GroupCommit::new("test", store.clone(), LIMITS);
    let first = occupy(&writes, &mut batches).await;
    let waiting = queue(&writes, 1..4);
    store.commits.add_permits(10);
    assert_eq!(first.await, Ok(0));
    assert_eq!(join_all(waiting).await, [Err(Failure::UnknownOutcome); 3]);
    assert_eq!(batches.recv().await.unwrap(), [1, 2, 3]);
    assert!(batches.try_recv().is_err());
    assert_eq!(writes.write(4).await, Ok(40));
}

#[tokio::test]
async fn dropped_callers_cancel_nothing() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    let writes = GroupCommit::new("test", store.clone(), LIMITS);
    let first = occupy(&writes, &mut batches).await;
    let mut waiting = queue(&writes, 1..4);
    drop(waiting.remove(1));
    store.commits.add_permits(2);
    assert_eq!(first.await, Ok(0));
    assert_eq!(join_all(waiting).await, [Ok(10), Ok(30)]);
    assert_eq!(*store.committed.lock(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn writes_beyond_the_capacity_are_rejected() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    let writes = GroupCommit::new("test", store.clone(), Limits { capacity: 2, ..LIMITS });
    let first = occupy(&writes, &mut batches).await;
    let waiting = queue(&writes, 1..4);
    store.commits.add_permits(10);
    assert_eq!(first.await, Ok(0));
    assert_eq!(join_all(waiting).await, [Ok(10), Ok(20), Err(Failure::Full)]);
    assert_eq!(writes.write(4).await, Ok(40));
}

#[tokio::test]
async fn panic_fails_its_batch_and_not_the_next() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    let writes = GroupCommit::new("test", store.clone(), LIMITS);
    let first = occupy(&writes, &mut batches).await;
    store.panics.store(1, Ordering::SeqCst);
    let waiting = queue(&writes, [1]);
    store.commits.add_permits(10);
    assert_eq!(first.await, Err(Failure::Interrupted));
    assert_eq!(join_all(waiting).await, [Ok(10)]);
}

#[tokio::test]
async fn next_batch_starts_beside_a_slow_one() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    let writes = GroupCommit::new("test", store.clone(), Limits { max_concurrent: 2, slow_after: Duration::ZERO, ..LIMITS });
    let first = occupy(&writes, &mut batches).await;
    let second = queue(&writes, [1]);
    // The second batch starts while the first one is still in progress.
    assert_eq!(batches.recv().await.unwrap(), [1]);
    store.commits.add_permits(2);
    assert_eq!((first.await, join_all(second).await), (Ok(0), vec![Ok(10)]));
}

#[test]
fn end_of_the_runtime_answers_waiting_callers() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    let writes = GroupCommit::new("test", store, LIMITS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let waiting = runtime.block_on(async {
        let first = occupy(&writes, &mut batches).await;
        drop(first);
        queue(&writes, [1])
    });
    drop(runtime);
    assert_eq!(futures_util::FutureExt::now_or_never(join_all(waiting)), Some(vec![Err(Failure::Interrupted)]));
}

#[tokio::test(start_paused = true)]
async fn batch_over_the_time_limit_is_interrupted_and_the_next_one_is_written() {
    let (store, mut batches) = store(&[], Failure::RolledBack);
    let writes = GroupCommit::new("test", store.clone(), Limits { time_limit: Duration::from_secs(1), ..LIMITS });
    let slow = occupy(&writes, &mut batches).await;
    let next = queue(&writes, [1]);
    assert_eq!(slow.await, Err(Failure::Interrupted));
    assert_eq!(batches.recv().await.unwrap(), [1]);
    store.commits.add_permits(1);
    assert_eq!(join_all(next).await, [Ok(10)]);
    assert_eq!(*store.committed.lock(), [1]);
}

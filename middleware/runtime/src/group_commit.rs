//! Group commit (write batching): while one commit is in progress, further writes are collected
//! and then committed together.
//!
//! There is no timer, so a write that meets no other one starts at once. Under load the number of
//! commits falls with the number of waiting writes, as in the group commit of databases. A write
//! is acknowledged after its commit, never before. Memory is bounded: writes beyond the capacity
//! are rejected.
//!
//! A caller that stops waiting does not cancel its write: from [`GroupCommit::write`] on, the write
//! belongs to its batch. A batch that takes too long is given up, with an unknown outcome.
//!
//! ```
//! use palisade_runtime::group_commit::{BatchError, BatchWriter, GroupCommit, Limits};
//!
//! #[derive(Debug)]
//! struct Failed;
//!
//! impl BatchError for Failed {
//!     fn is_rolled_back(&self) -> bool { true }
//!     fn copy(&self) -> Self { Self }
//!     fn queue_full() -> Self { Self }
//!     fn interrupted() -> Self { Self }
//! }
//!
//! struct Sums;
//!
//! impl BatchWriter for Sums {
//!     type Item = u64;
//!     type Output = u64;
//!     type Error = Failed;
//!
//!     async fn write(&self, items: &[u64]) -> Result<Vec<Result<u64, Failed>>, Failed> {
//!         Ok(items.iter().map(|item| Ok(item + 1)).collect())
//!     }
//! }
//!
//! # tokio_test::block_on(async {
//! let sums = GroupCommit::new("sums", Sums, Limits::default());
//! assert_eq!(sums.write(41).await.unwrap(), 42);
//! # });
//! ```

mod batch_metrics;
mod queue;

use std::{fmt, future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::FutureExt;
use palisade_resilience::metrics;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use self::{
    batch_metrics::BatchMetrics,
    queue::{Pushed, Queue},
};
use crate::store_instrumentation::scope_call_facts;

pub use self::{
    batch_metrics::{BATCH_SIZE, REJECTED_WRITES, WAITING_WRITES, register},
    queue::Limits,
};

/// Writes batches to a store.
pub trait BatchWriter: Send + Sync + 'static {
    /// One write.
    type Item: Send + Sync + 'static;
    /// Result of one write.
    type Output: Send + 'static;
    /// Error of one write or of a whole batch.
    type Error: BatchError;

    /// Writes `items` in one commit. Returns one result per item, in order, or an error if the
    /// batch as a whole failed.
    fn write(&self, items: &[Self::Item]) -> impl Future<Output = BatchResult<Self>> + Send;
}

/// Result of [`BatchWriter::write`].
pub type BatchResult<W> = Result<Vec<Result<<W as BatchWriter>::Output, <W as BatchWriter>::Error>>, <W as BatchWriter>::Error>;

/// Error of a store that takes batches.
pub trait BatchError: Send + 'static {
    /// Whether the store has certainly written nothing, so that the items may be written again one
    /// by one. `false` if the outcome of the commit is unknown.
    fn is_rolled_back(&self) -> bool;

    /// Returns the error for a further item of the same batch.
    #[must_use]
    fn copy(&self) -> Self;

    /// Creates the error for a write beyond the capacity of the queue. Nothing was written.
    fn queue_full() -> Self;

    /// Creates the error for a write whose batch panicked, took too long, or whose runtime ended:
    /// the outcome is unknown.
    fn interrupted() -> Self;
}

/// Batches the writes of one writer. Clones share the queue.
pub struct GroupCommit<W: BatchWriter>(Arc<Shared<W>>);

struct Shared<W: BatchWriter> {
    writer: W,
    queue: Mutex<Queue<Member<W>>>,
    limits: Limits,
    metrics: BatchMetrics,
}

struct Member<W: BatchWriter> {
    item: W::Item,
    reply: oneshot::Sender<Result<W::Output, W::Error>>,
}

impl<W: BatchWriter> GroupCommit<W> {
    /// Creates an empty queue in front of `writer`. `name` is a label, so it must be bounded by
    /// code.
    pub fn new(name: &'static str, writer: W, limits: Limits) -> Self {
        Self(Arc::new(Shared { writer, queue: Mutex::new(Queue::new(limits)), limits, metrics: BatchMetrics::new(name) }))
    }

    /// Writes `item` with the next batch and returns its result after the commit. The write is
    /// carried out even if the returned future is dropped after its first poll.
    pub async fn write(&self, item: W::Item) -> Result<W::Output, W::Error> {
        let (reply, result) = oneshot::channel();
        self.0.metrics.added();
        let pushed = self.0.queue.lock().push(Member { item, reply });
        match pushed {
            Pushed::Full => {
                self.0.metrics.rejected();
                return Err(W::Error::queue_full());
            }
            Pushed::Joined => {}
            Pushed::First => self.start_flush(),
        }
        result.await.unwrap_or_else(|_closed| Err(W::Error::interrupted()))
    }

    /// Starts a task that writes batches until the queue is empty. It must not keep the span or
    /// the deadline of the request that happened to start it.
    fn start_flush(&self) {
        let flush = Flush { shared: self.0.clone(), ended: false };
        #[expect(clippy::disallowed_methods, reason = "a batch belongs to several requests, not to the first one's span and context")]
        tokio::spawn(metrics::propagate(flush.run()));
    }
}

/// Run of one flush task.
struct Flush<W: BatchWriter> {
    shared: Arc<Shared<W>>,
    ended: bool,
}

impl<W: BatchWriter> Flush<W> {
    async fn run(mut self) {
        loop {
            let taken = self.shared.queue.lock().take();
            let Some(batch) = taken else {
                self.ended = true;
                return;
            };
            self.shared.metrics.taken(batch.len());
            let (items, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|member| (member.item, member.reply)).unzip();
            let results = self.write_or_step_aside(&items).await;
            for (reply, result) in replies.into_iter().zip(results) {
                // Fails if the caller has stopped waiting.
                let _ = reply.send(result);
            }
        }
    }

    /// Writes a batch. While it is slow, further batches may start beside it.
    async fn write_or_step_aside(&self, items: &[W::Item]) -> Vec<Result<W::Output, W::Error>> {
        let mut write = pin!(self.write(items));
        if let Ok(results) = timeout(self.shared.limits.slow_after, write.as_mut()).await {
            return results;
        }
        let _slow = SlowBatch::begin(&self.shared);
        write.await
    }

    /// Writes a batch and returns one result per item.
    async fn write(&self, items: &[W::Item]) -> Vec<Result<W::Output, W::Error>> {
        match self.write_once(items).await {
            Ok(results) => results,
            // One item may have failed the others: each is written alone, so that only it fails.
            Err(error) if error.is_rolled_back() && items.len() > 1 => {
                let mut results = Vec::with_capacity(items.len());
                for item in items {
                    let alone = self.write_once(std::slice::from_ref(item)).await;
                    results.push(alone.and_then(|mut results| results.pop().unwrap_or_else(|| Err(W::Error::interrupted()))));
                }
                results
            }
            Err(error) => {
                let mut results: Vec<_> = items.iter().skip(1).map(|_| Err(error.copy())).collect();
                results.push(Err(error));
                results
            }
        }
    }

    /// Writes `items` once. A panic of the writer, a wrong number of results, or too long a wait
    /// fails the batch.
    async fn write_once(&self, items: &[W::Item]) -> BatchResult<W> {
        let write = AssertUnwindSafe(scope_call_facts(self.shared.writer.write(items))).catch_unwind();
        match timeout(self.shared.limits.time_limit, write).await {
            Ok(Ok(Ok(results))) if results.len() != items.len() => Err(W::Error::interrupted()),
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(W::Error::interrupted()),
        }
    }
}

/// Slow batch in progress. Ends when dropped.
struct SlowBatch<'a, W: BatchWriter>(&'a Shared<W>);

impl<'a, W: BatchWriter> SlowBatch<'a, W> {
    fn begin(shared: &'a Arc<Shared<W>>) -> Self {
        let must_start = shared.queue.lock().slow_begins();
        if must_start {
            GroupCommit(shared.clone()).start_flush();
        }
        Self(shared)
    }
}

impl<W: BatchWriter> Drop for SlowBatch<'_, W> {
    fn drop(&mut self) {
        self.0.queue.lock().slow_ends();
    }
}

impl<W: BatchWriter> Drop for Flush<W> {
    fn drop(&mut self) {
        if !self.ended {
            // The runtime is shutting down: waiting callers get an error instead of no answer.
            let abandoned = self.shared.queue.lock().abandon();
            self.shared.metrics.removed(abandoned.len());
        }
    }
}

impl<W: BatchWriter> Clone for GroupCommit<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: BatchWriter> fmt::Debug for GroupCommit<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").field("queue", &*self.0.queue.lock()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! Recorded calls of concurrent clients.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::Model;

/// Call of a client, and its reply.
#[derive(Debug, Clone)]
pub struct Operation<C, R> {
    /// Call with its arguments.
    pub call: C,
    /// Reply. `None`: the call took effect at any time after its start, or never.
    pub reply: Option<R>,
    /// Time of the call, see [`History`].
    pub called_at: u64,
    /// Time of the reply.
    pub replied_at: Option<u64>,
}

/// History of one object. Times are ticks of a counter: a reply that a client received before
/// another client called has the smaller one.
#[derive(Debug)]
pub struct History<M: Model> {
    now: AtomicU64,
    operations: Mutex<Vec<Operation<M::Call, M::Reply>>>,
}

/// Call that waits for its reply. Without one it stays unanswered, also when the client is dropped.
#[derive(Debug)]
#[must_use = "a call needs its reply"]
pub struct Pending<'a, M: Model> {
    history: &'a History<M>,
    index: usize,
}

impl<M: Model> Default for History<M> {
    fn default() -> Self {
        Self { now: AtomicU64::new(0), operations: Mutex::default() }
    }
}

impl<M: Model> History<M> {
    /// Records a call that is sent afterwards.
    pub fn call(&self, call: M::Call) -> Pending<'_, M> {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.push(Operation { call, reply: None, called_at: self.tick(), replied_at: None });
        Pending { history: self, index: operations.len() - 1 }
    }

    /// Returns the operations in the order of their calls.
    pub fn operations(&self) -> Vec<Operation<M::Call, M::Reply>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst)
    }
}

impl<M: Model> Pending<'_, M> {
    /// Records the reply that was received before, which also answered `call` with `answer`.
    pub fn reply_with(self, reply: M::Reply, (call, answer): (M::Call, M::Reply)) {
        let (history, index) = (self.history, self.index);
        self.reply(reply);
        let mut operations = history.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let Operation { called_at, replied_at, .. } = operations[index];
        operations.push(Operation { call, reply: Some(answer), called_at, replied_at });
    }

    /// Records the reply that was received before.
    pub fn reply(self, reply: M::Reply) {
        let mut operations = self.history.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let operation = &mut operations[self.index];
        (operation.reply, operation.replied_at) = (Some(reply), Some(self.history.tick()));
    }
}

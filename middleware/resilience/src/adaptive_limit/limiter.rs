//! Shared limiter: admission, the permit that returns its slot, and the queue wait.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use metrics::{Counter, Histogram};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{
    config::Config,
    queue::{ShedReason, Ticket},
    state::{Occupancy, QueueExit, Sample, State},
};
use crate::{
    deadline,
    jitter::{self, RandomFn},
    metrics::{as_f64, register_observable, register_observable_sum},
    priority::Priority,
    rejection::{Rejection, reasons},
};

const LIMITER: &str = "adaptive";
/// Retry delay sent with a shed request, and the fraction by which it is jittered.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_JITTER: f64 = 0.5;

/// The limiter shared by all requests. With a free slot, admission and release take one short lock
/// each.
pub(super) struct Limiter {
    state: Mutex<State<WaiterSender>>,
    wait_time: Histogram,
    shed_full: Counter,
    shed_timeout: Counter,
}

type WaiterSender = oneshot::Sender<Result<Permit, ShedReason>>;

/// Result of an admission attempt.
pub(super) enum Admission {
    /// The request runs.
    Admitted(Permit),
    /// The request waits in the queue.
    Queued(Waiter),
    /// The request is shed.
    Rejected(ShedReason),
}

impl Limiter {
    pub(super) fn new(config: &Config, draw: RandomFn) -> Arc<Self> {
        let shed = |reason: &'static str| metrics::counter!("palisade.requests.shed", "reason" => reason);
        let limiter = Arc::new(Self {
            state: Mutex::new(State::new(config, draw, Instant::now())),
            wait_time: metrics::histogram!("palisade.queue.wait", "limiter" => LIMITER),
            shed_full: shed("queue_full"),
            shed_timeout: shed("queue_timeout"),
        });
        let limit = metrics::gauge!("palisade.concurrency.limit", "limiter" => LIMITER);
        limit.set(config.initial_limit);
        register_observable(&limiter, move |limiter| limit.set(as_f64(limiter.occupancy().limit)));
        let export = |gauge, count: fn(Occupancy) -> usize| {
            register_observable_sum(&limiter, gauge, move |limiter| u32::try_from(count(limiter.occupancy())).unwrap_or(u32::MAX));
        };
        export(metrics::gauge!("palisade.concurrency.in_use", "limiter" => LIMITER), |occupancy| occupancy.in_use);
        export(metrics::gauge!("palisade.queue.depth", "limiter" => LIMITER), |occupancy| occupancy.waiting);
        limiter
    }

    /// Admits, queues or sheds a request whose response is due by `deadline`.
    pub(super) fn admit(self: &Arc<Self>, priority: Priority, deadline: Option<Instant>, now: Instant) -> Admission {
        let mut state = self.state.lock();
        if state.try_admit(priority) {
            drop(state);
            return Admission::Admitted(self.permit(priority));
        }
        let (may_wait, leaving) = state.may_queue(priority, now);
        let waiter = may_wait.then(|| {
            let (answer, answered) = oneshot::channel();
            let ticket = state.enqueue(priority, deadline, answer, now);
            Waiter { limiter: self.clone(), ticket, queued_at: now, deadline, result: answered, done: false }
        });
        drop(state);
        self.notify_waiters(leaving.into_iter().map(|(answer, why)| (answer, QueueExit::Shed(why))));
        if let Some(waiter) = waiter {
            return Admission::Queued(waiter);
        }
        self.count_shed(ShedReason::Full);
        Admission::Rejected(ShedReason::Full)
    }

    /// Returns the limit and its use, for metrics, `Debug` and tests.
    pub(super) fn occupancy(&self) -> Occupancy {
        self.state.lock().occupancy()
    }

    fn release(self: &Arc<Self>, priority: Priority, sample: Option<Sample>, now: Instant) {
        let mut state = self.state.lock();
        let leaving = state.finish(priority, sample, now);
        drop(state);
        self.notify_waiters(leaving);
    }

    /// Must not run under the lock: waking a task runs foreign code, and dropping a permit locks
    /// again.
    fn notify_waiters(self: &Arc<Self>, leaving: impl IntoIterator<Item = (WaiterSender, QueueExit)>) {
        for (answer, leave) in leaving {
            let result = match leave {
                QueueExit::Admitted(priority) => Ok(self.permit(priority)),
                QueueExit::Shed(why) => {
                    self.count_shed(why);
                    Err(why)
                }
            };
            // If the waiter was dropped at this moment the permit comes back, and its drop passes
            // the slot on.
            drop(answer.send(result));
        }
    }

    fn permit(self: &Arc<Self>, priority: Priority) -> Permit {
        Permit { limiter: self.clone(), priority, sample: None }
    }

    fn count_shed(&self, why: ShedReason) {
        match why {
            ShedReason::Full => self.shed_full.increment(1),
            ShedReason::WaitTooLong | ShedReason::Expired => self.shed_timeout.increment(1),
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.occupancy().fmt(f)
    }
}

/// Permit of a running request. Dropping it returns the slot and records the sample.
#[derive(Debug)]
pub(super) struct Permit {
    limiter: Arc<Limiter>,
    priority: Priority,
    /// Latency sample of the request.
    pub(super) sample: Option<Sample>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.release(self.priority, self.sample, Instant::now());
    }
}

/// A queued request. Dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Waiter {
    limiter: Arc<Limiter>,
    ticket: Ticket,
    queued_at: Instant,
    deadline: Option<Instant>,
    result: oneshot::Receiver<Result<Permit, ShedReason>>,
    done: bool,
}

impl Future for Waiter {
    type Output = Result<Permit, ShedReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Every waiter that leaves the queue gets a result, so this error does not occur.
        let answer = ready!(Pin::new(&mut self.result).poll(cx)).unwrap_or(Err(ShedReason::Full));
        self.done = true;
        Poll::Ready(answer)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let now = Instant::now();
        self.limiter.wait_time.record(now.saturating_duration_since(self.queued_at));
        if self.done {
            return;
        }
        // The unused sender is dropped outside the lock, because that wakes a task.
        let unanswered = self.limiter.state.lock().remove_waiter(self.ticket);
        if unanswered.is_some() && self.deadline.is_some_and(|deadline| deadline <= now) {
            self.limiter.count_shed(ShedReason::Expired);
        }
    }
}

impl From<ShedReason> for Rejection {
    fn from(refused: ShedReason) -> Self {
        let detail = match refused {
            ShedReason::Full => "request queue is full",
            ShedReason::WaitTooLong => "queue wait is too long",
            ShedReason::Expired => return deadline::expired(),
        };
        Self::new(&reasons::OVERLOADED, detail).with_retry_after(jitter::jittered(RETRY_AFTER, RETRY_JITTER, jitter::random_unit))
    }
}

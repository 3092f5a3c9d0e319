//! One limit as all requests share it: the way in, the permit that gives the place back, and the wait for one.

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
    state::{QueueExit, Occupancy, Sample, State},
};
use crate::{
    deadline,
    jitter::{self, RandomFn},
    metrics::{as_f64, register_observable_sum, register_observable},
    priority::Priority,
    rejection::{Rejection, reasons},
};

const LIMITER: &str = "adaptive";
/// When a refused caller should come back, and by which share of it they are spread.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_JITTER: f64 = 0.5;

/// The shared limit. With a free place, coming in and going out are one short lock each.
pub(super) struct Limiter {
    state: Mutex<State<WaiterSender>>,
    wait_time: Histogram,
    shed_full: Counter,
    shed_timeout: Counter,
}

type WaiterSender = oneshot::Sender<Result<Permit, ShedReason>>;

/// What a request gets that asks to run.
pub(super) enum Admission {
    /// It may.
    Admitted(Permit),
    /// Not yet.
    Queued(Waiter),
    /// No.
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
        export(metrics::gauge!("palisade.queue.waiting", "limiter" => LIMITER), |occupancy| occupancy.waiting);
        limiter
    }

    /// A request comes that must be answered by `deadline`.
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

    /// What can be seen from outside, for `Debug` and for tests.
    pub(super) fn occupancy(&self) -> Occupancy {
        self.state.lock().occupancy()
    }

    fn release(self: &Arc<Self>, priority: Priority, sample: Option<Sample>, now: Instant) {
        let mut state = self.state.lock();
        let leaving = state.finish(priority, sample, now);
        drop(state);
        self.notify_waiters(leaving);
    }

    /// Never under the lock: waking somebody runs code that is not ours, and dropping a permit comes back here.
    fn notify_waiters(self: &Arc<Self>, leaving: impl IntoIterator<Item = (WaiterSender, QueueExit)>) {
        for (answer, leave) in leaving {
            let result = match leave {
                QueueExit::Admitted(priority) => Ok(self.permit(priority)),
                QueueExit::Shed(why) => {
                    self.count_shed(why);
                    Err(why)
                }
            };
            // A permit for somebody who has gone at this moment comes back here, and its drop passes the place on.
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

/// One request that runs; gives its place back, with what it has shown, when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limiter: Arc<Limiter>,
    priority: Priority,
    /// What the request says of the server.
    pub(super) sample: Option<Sample>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.release(self.priority, self.sample, Instant::now());
    }
}

/// One request that waits; leaves the queue when dropped.
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
        // Whoever leaves the queue is told, so there is no error.
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
        // The answer that nobody will give is dropped outside the lock: that wakes somebody.
        let unanswered = self.limiter.state.lock().remove_waiter(self.ticket);
        if unanswered.is_some() && self.deadline.is_some_and(|deadline| deadline <= now) {
            self.limiter.count_shed(ShedReason::Expired);
        }
    }
}

impl From<ShedReason> for Rejection {
    fn from(refused: ShedReason) -> Self {
        let detail = match refused {
            ShedReason::Full => "too many requests wait",
            ShedReason::WaitTooLong => "requests wait for too long",
            ShedReason::Expired => return deadline::expired(),
        };
        Self::new(&reasons::OVERLOADED, detail).with_retry_after(jitter::jittered(RETRY_AFTER, RETRY_JITTER, jitter::random_unit))
    }
}

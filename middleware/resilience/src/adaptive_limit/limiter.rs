//! Shared limiter: admission, the permit and its return, and the queue wait.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use metrics::{Counter, Histogram};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep},
};

use super::{
    aliases::Aliases,
    config::Config,
    queue::{ShedReason, Ticket},
    state::{Occupancy, QueueExit, Sample, State},
};
use crate::{
    caller::CallerKey,
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

/// The limiter shared by all requests. With a free permit, admission and release take one short
/// lock each.
pub(super) struct Limiter {
    state: Mutex<State<WaiterSender>>,
    /// Whether requests wait. Updated under the lock, read without it.
    has_queue: AtomicBool,
    aliases: Aliases,
    wait_time: Histogram,
    shed_full: Counter,
    shed_timeout: Counter,
    shed_share: Counter,
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
        let shed = |reason: &'static str| crate::counter!("palisade.requests.shed", "reason" => reason);
        let limiter = Arc::new(Self {
            state: Mutex::new(State::new(config, draw, Instant::now())),
            has_queue: AtomicBool::new(false),
            aliases: Aliases::new(),
            wait_time: crate::histogram!("palisade.queue.wait", "limiter" => LIMITER),
            shed_full: shed("queue_full"),
            shed_timeout: shed("queue_timeout"),
            shed_share: shed("caller_share"),
        });
        let limit = crate::gauge!("palisade.concurrency.limit", "limiter" => LIMITER);
        limit.set(config.initial_limit);
        register_observable(&limiter, move |limiter| limit.set(as_f64(limiter.occupancy().limit)));
        let export = |gauge, count: fn(Occupancy) -> usize| {
            register_observable_sum(&limiter, gauge, move |limiter| u32::try_from(count(limiter.occupancy())).unwrap_or(u32::MAX));
        };
        export(crate::gauge!("palisade.concurrency.in_use", "limiter" => LIMITER), |occupancy| occupancy.in_use);
        export(crate::gauge!("palisade.queue.depth", "limiter" => LIMITER), |occupancy| occupancy.waiting);
        limiter
    }

    /// Admits, queues or sheds a request of `caller` whose response is due by `deadline`.
    pub(super) fn admit(self: &Arc<Self>, priority: Priority, caller: CallerKey, deadline: Option<Instant>, now: Instant) -> Admission {
        let mut state = self.state.lock();
        if state.try_admit(priority, caller) {
            drop(state);
            return Admission::Admitted(self.permit(priority, caller));
        }
        let (may_wait, leaving) = state.may_queue(priority, caller, now);
        let waiter = may_wait.map(|()| {
            let (answer, answered) = oneshot::channel();
            let (ticket, sweep_at) = state.enqueue(priority, caller, deadline, answer, now);
            let timer = Box::pin(tokio::time::sleep_until(sweep_at));
            let latest = now + state.max_wait();
            Waiter { limiter: self.clone(), ticket, queued_at: now, latest, deadline, timer, result: answered, done: false }
        });
        self.has_queue.store(state.has_queue(), Ordering::Relaxed);
        drop(state);
        self.notify_waiters(leaving.into_iter().map(|(answer, why)| (answer, QueueExit::Shed(why))));
        match waiter {
            Ok(waiter) => Admission::Queued(waiter),
            Err(why) => {
                self.count_shed(why);
                Admission::Rejected(why)
            }
        }
    }

    /// Learns that requests with these unverified credentials are requests of `caller`.
    pub(super) fn learn(&self, credentials: CallerKey, caller: CallerKey) {
        self.aliases.insert(credentials, caller);
    }

    /// Rejects a request before authentication if it would only add to an overload. Its caller is
    /// known by its address, or by credentials of an earlier request; an unknown one passes.
    pub(super) fn refuse_early(&self, caller: impl FnOnce(&Aliases) -> Option<CallerKey>) -> Result<(), ShedReason> {
        if !self.has_queue.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(caller) = caller(&self.aliases) else { return Ok(()) };
        match self.state.lock().refuse_early(caller) {
            None => Ok(()),
            Some(why) => {
                self.count_shed(why);
                Err(why)
            }
        }
    }

    /// Returns the limit and its use, for metrics, `Debug` and tests.
    pub(super) fn occupancy(&self) -> Occupancy {
        self.state.lock().occupancy()
    }

    fn release(self: &Arc<Self>, permit: &Permit, now: Instant) {
        let mut state = self.state.lock();
        let leaving = state.finish(permit.priority, permit.caller, permit.sample, now);
        self.has_queue.store(state.has_queue(), Ordering::Relaxed);
        drop(state);
        self.notify_waiters(leaving);
    }

    /// Sheds the requests that waited too long although no other one ended.
    fn sweep(self: &Arc<Self>, now: Instant) {
        let mut state = self.state.lock();
        let leaving = state.sweep(now);
        self.has_queue.store(state.has_queue(), Ordering::Relaxed);
        drop(state);
        self.notify_waiters(leaving.into_iter().map(|(answer, why)| (answer, QueueExit::Shed(why))));
    }

    /// Must not run under the lock: waking a task runs foreign code, and dropping a permit locks
    /// again.
    fn notify_waiters(self: &Arc<Self>, leaving: impl IntoIterator<Item = (WaiterSender, QueueExit)>) {
        for (answer, leave) in leaving {
            let result = match leave {
                QueueExit::Admitted(priority, caller) => Ok(self.permit(priority, caller)),
                QueueExit::Shed(why) => {
                    self.count_shed(why);
                    Err(why)
                }
            };
            // If the waiter was dropped at this moment the permit comes back, and its drop passes
            // it on.
            drop(answer.send(result));
        }
    }

    fn permit(self: &Arc<Self>, priority: Priority, caller: CallerKey) -> Permit {
        Permit { limiter: self.clone(), priority, caller, sample: None }
    }

    fn count_shed(&self, why: ShedReason) {
        match why {
            ShedReason::Full => self.shed_full.increment(1),
            ShedReason::AboveShare => self.shed_share.increment(1),
            ShedReason::WaitTooLong | ShedReason::Expired => self.shed_timeout.increment(1),
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.occupancy().fmt(f)
    }
}

/// Permit of a running request. Dropping it returns it and records the sample.
#[derive(Debug)]
pub(super) struct Permit {
    limiter: Arc<Limiter>,
    priority: Priority,
    caller: CallerKey,
    /// Latency sample of the request.
    pub(super) sample: Option<Sample>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.release(self, Instant::now());
    }
}

/// A queued request. Dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Waiter {
    limiter: Arc<Limiter>,
    ticket: Ticket,
    queued_at: Instant,
    /// End of the maximum queue wait.
    latest: Instant,
    deadline: Option<Instant>,
    /// Time of the next sweep: the head of the queue must not wait for another request to end.
    timer: Pin<Box<Sleep>>,
    result: oneshot::Receiver<Result<Permit, ShedReason>>,
    done: bool,
}

impl Future for Waiter {
    type Output = Result<Permit, ShedReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self.result).poll(cx) {
                self.done = true;
                // Every waiter that leaves the queue gets a result, so this error does not occur.
                return Poll::Ready(answer.unwrap_or(Err(ShedReason::Full)));
            }
            ready!(self.timer.as_mut().poll(cx));
            let (now, latest) = (Instant::now(), self.latest);
            self.limiter.sweep(now);
            // A request within its caller's share stays up to the maximum wait.
            let next = if now < latest { latest } else { now + Duration::from_millis(1) };
            self.timer.as_mut().reset(next);
        }
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
        let mut state = self.limiter.state.lock();
        let unanswered = state.remove_waiter(self.ticket);
        self.limiter.has_queue.store(state.has_queue(), Ordering::Relaxed);
        drop(state);
        if unanswered.is_some() && self.deadline.is_some_and(|deadline| deadline <= now) {
            self.limiter.count_shed(ShedReason::Expired);
        }
    }
}

impl From<ShedReason> for Rejection {
    fn from(refused: ShedReason) -> Self {
        let (reason, detail) = match refused {
            ShedReason::Full => (&reasons::OVERLOADED, "request queue is full"),
            ShedReason::WaitTooLong => (&reasons::OVERLOADED, "queue wait is too long"),
            ShedReason::AboveShare => (&reasons::RATE_LIMITED, "this caller takes more than its share of a busy service"),
            ShedReason::Expired => return deadline::expired(),
        };
        Self::new(reason, detail).with_retry_after(jitter::jittered(RETRY_AFTER, RETRY_JITTER, jitter::random_unit))
    }
}

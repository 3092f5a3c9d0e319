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
    queue::{Refused, Ticket},
    state::{Leave, Occupancy, Sample, State},
};
use crate::{
    deadline,
    jitter::{self, Draw},
    metrics::{as_f64, count_on_look, on_look},
    priority::Priority,
    rejection::{Rejection, reasons},
};

const LIMITER: &str = "adaptive";
/// When a refused caller should come back, and by which share of it they are spread.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_SPREAD: f64 = 0.5;

/// The shared limit. With a free place, coming in and going out are one short lock each.
pub(super) struct Limiter {
    state: Mutex<State<Answer>>,
    waited: Histogram,
    full: Counter,
    too_late: Counter,
}

type Answer = oneshot::Sender<Result<Permit, Refused>>;

/// What a request gets that asks to run.
pub(super) enum Entry {
    /// It may.
    Run(Permit),
    /// Not yet.
    Wait(Waiter),
    /// No.
    Refused(Refused),
}

impl Limiter {
    pub(super) fn new(config: &Config, draw: Draw) -> Arc<Self> {
        let shed = |reason: &'static str| metrics::counter!("palisade.requests.shed", "reason" => reason);
        let limiter = Arc::new(Self {
            state: Mutex::new(State::new(config, draw, Instant::now())),
            waited: metrics::histogram!("palisade.queue.wait", "limiter" => LIMITER),
            full: shed("queue_full"),
            too_late: shed("queue_timeout"),
        });
        let limit = metrics::gauge!("palisade.concurrency.limit", "limiter" => LIMITER);
        limit.set(config.initial_limit);
        on_look(&limiter, move |limiter| limit.set(as_f64(limiter.occupancy().limit)));
        let shown = |gauge, count: fn(Occupancy) -> usize| {
            count_on_look(&limiter, gauge, move |limiter| u32::try_from(count(limiter.occupancy())).unwrap_or(u32::MAX));
        };
        shown(metrics::gauge!("palisade.concurrency.in_use", "limiter" => LIMITER), |occupancy| occupancy.in_use);
        shown(metrics::gauge!("palisade.queue.waiting", "limiter" => LIMITER), |occupancy| occupancy.waiting);
        limiter
    }

    /// A request comes that must be answered by `deadline`.
    pub(super) fn enter(self: &Arc<Self>, priority: Priority, deadline: Option<Instant>, now: Instant) -> Entry {
        let mut state = self.state.lock();
        if state.enter(priority) {
            drop(state);
            return Entry::Run(self.permit(priority));
        }
        let (may_wait, leaving) = state.may_wait(priority, now);
        let waiter = may_wait.then(|| {
            let (answer, answered) = oneshot::channel();
            let ticket = state.wait(priority, deadline, answer, now);
            Waiter { limiter: self.clone(), ticket, since: now, deadline, answered, done: false }
        });
        drop(state);
        self.tell(leaving.into_iter().map(|(answer, why)| (answer, Leave::Refused(why))));
        if let Some(waiter) = waiter {
            return Entry::Wait(waiter);
        }
        self.count(Refused::Full);
        Entry::Refused(Refused::Full)
    }

    /// What can be seen from outside, for `Debug` and for tests.
    pub(super) fn occupancy(&self) -> Occupancy {
        self.state.lock().occupancy()
    }

    fn leave(self: &Arc<Self>, priority: Priority, sample: Option<Sample>, now: Instant) {
        let mut state = self.state.lock();
        let leaving = state.leave(priority, sample, now);
        drop(state);
        self.tell(leaving);
    }

    /// Never under the lock: waking somebody runs code that is not ours, and dropping a permit comes back here.
    fn tell(self: &Arc<Self>, leaving: impl IntoIterator<Item = (Answer, Leave)>) {
        for (answer, leave) in leaving {
            let result = match leave {
                Leave::Enter(priority) => Ok(self.permit(priority)),
                Leave::Refused(why) => {
                    self.count(why);
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

    fn count(&self, why: Refused) {
        match why {
            Refused::Full => self.full.increment(1),
            Refused::TooLong | Refused::Expired => self.too_late.increment(1),
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
        self.limiter.leave(self.priority, self.sample, Instant::now());
    }
}

/// One request that waits; leaves the queue when dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    limiter: Arc<Limiter>,
    ticket: Ticket,
    since: Instant,
    deadline: Option<Instant>,
    answered: oneshot::Receiver<Result<Permit, Refused>>,
    done: bool,
}

impl Future for Waiter {
    type Output = Result<Permit, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Whoever leaves the queue is told, so there is no error.
        let answer = ready!(Pin::new(&mut self.answered).poll(cx)).unwrap_or(Err(Refused::Full));
        self.done = true;
        Poll::Ready(answer)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let now = Instant::now();
        self.limiter.waited.record(now.saturating_duration_since(self.since));
        if self.done {
            return;
        }
        // The answer that nobody will give is dropped outside the lock: that wakes somebody.
        let unanswered = self.limiter.state.lock().forget(self.ticket);
        if unanswered.is_some() && self.deadline.is_some_and(|deadline| deadline <= now) {
            self.limiter.count(Refused::Expired);
        }
    }
}

impl From<Refused> for Rejection {
    fn from(refused: Refused) -> Self {
        let detail = match refused {
            Refused::Full => "too many requests wait",
            Refused::TooLong => "requests wait for too long",
            Refused::Expired => return deadline::expired(),
        };
        Self::new(&reasons::OVERLOADED, detail).with_retry_after(jitter::around(RETRY_AFTER, RETRY_SPREAD, jitter::draw))
    }
}

//! Background jobs that never end in silence: a panic, an error, an early end or a stall is caught,
//! counted, logged once and followed by a restart with backoff. A heartbeat shows that the job
//! works.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use palisade_resilience::job::{self, Heartbeat};
//! use tokio_util::sync::CancellationToken;
//!
//! let (stop, heartbeat) = (CancellationToken::new(), Heartbeat::new("example.cleanup"));
//! let (stopping, mut runs) = (stop.clone(), 0);
//! let job = move |heartbeat: Heartbeat| {
//!     runs += 1;
//!     let (first, stop) = (runs == 1, stopping.clone());
//!     async move {
//!         assert!(!first, "a bug in the first run");
//!         heartbeat.success();
//!         stop.cancel();
//!         Ok(())
//!     }
//! };
//! job::supervise(heartbeat.clone(), stop, job).await;
//! assert!(heartbeat.is_running());
//! # }
//! ```

use std::{
    any::Any,
    borrow::Cow,
    error::Error as StdError,
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{backoff::Backoff, catch_panic, clock, jitter};

/// Backoff before the first restart, doubled with each further one.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
/// Maximum backoff before a restart.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Jitter of the backoff, so that replicas do not restart in step.
const JITTER: f64 = 0.2;
/// Interval of the heartbeats of a job that waits.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
/// Time without success, failure or declared wait after which a run is ended. Longer than the
/// longest call of a job.
pub const STALL_LIMIT: Duration = Duration::from_mins(5);

/// Error that ends a run of a job.
pub type Error = Box<dyn StdError + Send + Sync>;

/// Result of one run of a job.
pub type Result = std::result::Result<(), Error>;

/// Panic of a job, with its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the job panicked: {0}")]
pub struct Panicked(String);

/// The job did nothing for [`STALL_LIMIT`].
#[derive(Debug, thiserror::Error)]
#[error("the job made no progress for {} seconds", STALL_LIMIT.as_secs())]
struct Stalled;

/// The job returned before its end.
#[derive(Debug, thiserror::Error)]
#[error("the job ended early")]
struct EndedEarly;

/// Progress of a job: its last success, and its failures since. Clones share it.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<State>);

#[derive(Debug)]
struct State {
    job: Cow<'static, str>,
    failures: AtomicU32,
    successes: AtomicU64,
    /// Whether the last run stalled, and none has succeeded since.
    stalled: AtomicBool,
    created: Instant,
    /// Time of the last sign of life, in milliseconds after `created`.
    active: AtomicU64,
    metrics: Metrics,
}

struct Metrics {
    restarts: metrics::Counter,
    failures: metrics::Gauge,
    last_success: metrics::Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Heartbeat {
    /// Creates the heartbeat of `job`, whose name must be bounded by code. Registers its metrics in
    /// the current service scope.
    pub fn new(job: impl Into<Cow<'static, str>>) -> Self {
        let job = job.into();
        let metrics = Metrics {
            restarts: crate::counter!("palisade.job.restarts", "name" => job.clone()),
            failures: crate::gauge!("palisade.job.failures", "name" => job.clone()),
            last_success: crate::gauge!("palisade.job.last_success", "name" => job.clone()),
        };
        metrics.restarts.increment(0);
        metrics.failures.set(0.0);
        metrics.last_success.set(0.0);
        Self(Arc::new(State {
            job,
            failures: AtomicU32::new(0),
            successes: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            created: Instant::now(),
            active: AtomicU64::new(0),
            metrics,
        }))
    }

    /// Records that the job has done its work, or found none.
    pub fn success(&self) {
        self.touch();
        self.0.stalled.store(false, Ordering::Release);
        self.0.successes.fetch_add(1, Ordering::AcqRel);
        if self.0.failures.swap(0, Ordering::AcqRel) > 0 {
            tracing::info!(job = &*self.0.job, "background job recovered");
        }
        self.0.metrics.failures.set(0.0);
        self.0.metrics.last_success.set(Duration::from_secs(clock::unix_time().as_secs()));
    }

    /// Records that the job could not do its work. Logs the first failure after a success.
    pub fn failure(&self, error: &(dyn StdError + 'static)) {
        self.touch();
        let before = self.0.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |failures| Some(failures.saturating_add(1)));
        let before = before.unwrap_or(u32::MAX);
        self.0.metrics.failures.set(f64::from(before.saturating_add(1)));
        if before == 0 {
            tracing::warn!(job = &*self.0.job, error, "background job failed, retrying");
        } else {
            tracing::debug!(job = &*self.0.job, error, failures = before, "background job failed again, retrying");
        }
    }

    /// Records `result` and returns its value.
    pub fn record<T, E: StdError + 'static>(&self, result: std::result::Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.success();
                Some(value)
            }
            Err(error) => {
                self.failure(&error);
                None
            }
        }
    }

    /// Awaits `wait` on behalf of a job that has no work meanwhile. Counts as a success every five
    /// seconds.
    pub async fn idle<F: Future>(&self, wait: F) -> F::Output {
        during(pin!(wait), || self.success()).await
    }

    /// Awaits `wait` between two runs of periodic work. Neither a success nor a stall.
    pub async fn pause<F: Future>(&self, wait: F) -> F::Output {
        let output = during(pin!(wait), || self.touch()).await;
        self.touch();
        output
    }

    /// Records a sign of life.
    fn touch(&self) {
        let active = u64::try_from(self.0.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.active.store(active, Ordering::Release);
    }

    /// Waits until the job has not shown a sign of life for [`STALL_LIMIT`].
    async fn stall(&self) {
        self.touch();
        loop {
            let active = self.0.active.load(Ordering::Acquire);
            tokio::time::sleep_until(self.0.created + Duration::from_millis(active) + STALL_LIMIT).await;
            if self.0.active.load(Ordering::Acquire) == active {
                return self.0.stalled.store(true, Ordering::Release);
            }
        }
    }

    /// Whether the job has stalled, and not succeeded since.
    pub fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Acquire)
    }

    /// Number of failures since the last success.
    pub fn failures(&self) -> u32 {
        self.0.failures.load(Ordering::Acquire)
    }

    /// Whether the job has succeeded at least once.
    pub fn is_running(&self) -> bool {
        self.successes() > 0
    }

    fn successes(&self) -> u64 {
        self.0.successes.load(Ordering::Acquire)
    }

    /// Name of the job.
    pub fn job(&self) -> &str {
        &self.0.job
    }
}

/// Awaits `wait`, and calls `tick` every five seconds meanwhile.
async fn during<F: Future>(mut wait: Pin<&mut F>, tick: impl Fn()) -> F::Output {
    let mut ticks = interval_at(Instant::now() + IDLE_INTERVAL, IDLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            output = &mut wait => return output,
            _ = ticks.tick() => tick(),
        }
    }
}

/// Runs `job` until `stop`, which it must observe by itself. Restarts it with backoff after a
/// panic, an error, an early end, or [`STALL_LIMIT`] without a sign of life. The run of a stalled
/// job is dropped.
pub async fn supervise<F, Fut>(heartbeat: Heartbeat, stop: CancellationToken, job: F)
where
    F: FnMut(Heartbeat) -> Fut,
    Fut: Future<Output = Result>,
{
    run(&heartbeat, &stop, End::AtStop, job).await;
}

/// Runs `work` of a job immediately and then periodically, at most 1/20 of the time (duty cycle),
/// until `stop`. The pause between runs is `pause` or 19 times the duration of the last run,
/// whichever is longer.
pub async fn run_with_duty_cycle<F: Future<Output = ()>>(
    pause: Duration,
    (heartbeat, stop): (&Heartbeat, CancellationToken),
    mut work: impl FnMut() -> F,
) {
    const PAUSE_FACTOR: u32 = 19;
    loop {
        let started = Instant::now();
        if stop.run_until_cancelled(work()).await.is_none() {
            return;
        }
        let pause = pause.max(started.elapsed() * PAUSE_FACTOR);
        if stop.run_until_cancelled(heartbeat.pause(tokio::time::sleep(pause))).await.is_none() {
            return;
        }
    }
}

/// Runs `job` until it returns `Ok`, or until `stop`, which ends it at its next await.
pub async fn complete<F, Fut>(heartbeat: Heartbeat, stop: CancellationToken, job: F)
where
    F: FnMut(Heartbeat) -> Fut,
    Fut: Future<Output = Result>,
{
    run(&heartbeat, &stop, End::WhenDone, job).await;
}

/// When a job may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    AtStop,
    WhenDone,
}

async fn run<F, Fut>(heartbeat: &Heartbeat, stop: &CancellationToken, end: End, mut job: F)
where
    F: FnMut(Heartbeat) -> Fut,
    Fut: Future<Output = Result>,
{
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    loop {
        let before = heartbeat.successes();
        // The call is part of the run: it may panic, too.
        let run = catch(async { job(heartbeat.clone()).await });
        let result = match end {
            End::AtStop => tokio::select! {
                biased;
                result = run => result,
                () = heartbeat.stall() => Ok(Err(Stalled.into())),
            },
            End::WhenDone => match stop.run_until_cancelled(run).await {
                Some(result) => result,
                None => return,
            },
        };
        let error: Error = match result {
            Ok(Ok(())) if end == End::WhenDone => return heartbeat.success(),
            Ok(Ok(())) if stop.is_cancelled() => return,
            Ok(Ok(())) => EndedEarly.into(),
            Ok(Err(error)) => error,
            Err(panicked) => panicked.into(),
        };
        if heartbeat.successes() != before {
            backoff.reset();
        }
        heartbeat.failure(&*error);
        heartbeat.0.metrics.restarts.increment(1);
        let wait = jitter::jittered(backoff.next_wait(), JITTER, jitter::random_unit);
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// Awaits `future` and returns its panic as an error. The panic is counted in `palisade.panics`.
pub async fn catch<F: Future>(future: F) -> std::result::Result<F::Output, Panicked> {
    // State behind the panic is not used again: the future is dropped.
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| panicked(&*panic))
}

/// Converts the payload of a panic in a task and counts it in `palisade.panics`.
pub fn panicked(panic: &(dyn Any + Send)) -> Panicked {
    catch_panic::panic_counter().increment(1);
    Panicked(catch_panic::panic_message(panic).to_owned())
}

#[cfg(test)]
mod tests;

//! The disk of a simulated service: runs the calls of a real SQLite store one at a time, with
//! latency and failures before and after the commit point.
//!
//! The store has threads of its own, so the simulation stands still while a call runs. A call is
//! therefore one instant of simulated time, and a crash finds it either done or not begun. A write
//! whose caller gives up may be done later, as by a database server that has received it.

use std::{
    future::{Future, pending},
    mem,
    sync::Arc,
    thread,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_middleware::task;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::mpsc, time::sleep};

use crate::story::{Story, Violation};

/// Thread that runs the calls of all stores.
#[derive(Clone)]
pub struct Executor(mpsc::UnboundedSender<BoxFuture<'static, ()>>);

/// Checks the invariants of the data after a write.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Vec<Violation>> + Send + Sync>;

/// Disk of one store. Survives crashes of the processes that use it.
pub struct Disk {
    name: &'static str,
    executor: Executor,
    story: Story,
    check: Check,
    state: Mutex<State>,
}

struct State {
    faults: DiskFaults,
    random: StdRng,
    calls: u64,
    failed: u64,
    crash_points: Vec<CrashPoint>,
    crashing: Vec<String>,
}

/// Crash of a process after a commit and before its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashPoint {
    /// Host of the process.
    pub host: String,
    /// Method of the store.
    pub operation: &'static str,
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DiskFaults {
    /// Share of calls that fail before they are made.
    pub fail_before: f64,
    /// Share of writes whose commit succeeds and is reported as failed.
    pub fail_after: f64,
    /// Maximum additional latency before and after the commit, milliseconds.
    pub delay_ms: u64,
    /// Whether every write fails.
    pub is_full: bool,
}

/// Kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Changes nothing.
    Read,
    /// May change data.
    Write,
}

/// Error of a store that a fault can create.
pub trait DiskError {
    /// The store is unavailable; the effect of the call is unknown.
    fn unavailable(reason: &'static str) -> Self;
}

impl Executor {
    /// Starts the thread.
    pub fn start() -> anyhow::Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<BoxFuture<'static, ()>>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("disk".to_owned()).spawn(move || {
            runtime.block_on(async move {
                while let Some(job) = queue.recv().await {
                    job.await;
                }
            });
        })?;
        Ok(Self(jobs))
    }

    /// Runs `job` to its end while the calling thread waits. Returns `None` if it panicked.
    pub fn wait<T: Send + 'static>(&self, job: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (done, result) = std::sync::mpsc::sync_channel(1);
        let job = async move {
            // The receiver waits below.
            let _ = done.send(job.await);
        };
        self.0.send(job.boxed()).ok()?;
        result.recv().ok()
    }
}

impl Disk {
    /// Creates a disk whose latencies and failures follow `seed`.
    pub fn new(name: &'static str, executor: Executor, story: Story, check: Check, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let state = State { faults: DiskFaults::default(), random, calls: 0, failed: 0, crash_points: Vec::new(), crashing: Vec::new() };
        Self { name, executor, story, check, state: Mutex::new(state) }
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.state.lock().faults = faults;
    }

    /// Crashes a process at its next call of an operation.
    pub fn add_crash_point(&self, point: CrashPoint) {
        self.state.lock().crash_points.push(point);
    }

    /// Removes a crash point. Returns whether it was not reached.
    pub fn remove_crash_point(&self, point: &CrashPoint) -> bool {
        let points = &mut self.state.lock().crash_points;
        let waiting = points.iter().position(|other| other == point);
        waiting.map(|number| points.swap_remove(number)).is_some()
    }

    /// Returns the hosts whose processes reached a crash point.
    pub fn take_crashing(&self) -> Vec<String> {
        mem::take(&mut self.state.lock().crashing)
    }

    /// Returns the number of calls, and of failed ones.
    pub fn calls(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.calls, state.failed)
    }

    /// Runs one call of the store by the process of `host`.
    pub async fn call<T, E>(
        self: &Arc<Self>,
        host: &str,
        (operation, kind): (&'static str, Kind),
        call: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: DiskError + Send + 'static,
    {
        let verdict = self.draw(kind);
        let (disk, host) = (self.clone(), host.to_owned());
        if verdict.outlives_caller {
            let call = task::spawn(async move { disk.carry_out(&host, (operation, kind), verdict, call).await });
            return call.await.unwrap_or_else(|_| Err(E::unavailable("the call panicked")));
        }
        disk.carry_out(&host, (operation, kind), verdict, call).await
    }

    async fn carry_out<T, E>(
        &self,
        host: &str,
        (operation, kind): (&'static str, Kind),
        verdict: Verdict,
        call: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: DiskError + Send + 'static,
    {
        sleep(verdict.before).await;
        if let Some(reason) = verdict.fails_before {
            self.story.tell(self.name, format!("{operation} fails: {reason}"));
            return Err(E::unavailable(reason));
        }
        let check = (kind == Kind::Write).then(|| self.check.clone());
        let job = async move {
            let result = call.await;
            let violations = match check {
                Some(check) => check().await,
                None => Vec::new(),
            };
            (result, violations)
        };
        let (result, violations) = self.executor.wait(job).ok_or_else(|| E::unavailable("the call panicked"))?;
        self.story.note(self.name, operation, result.is_ok());
        for Violation { invariant, evidence } in violations {
            self.story.violate(invariant, format!("after {operation} of {}: {evidence}", self.name));
        }
        if self.reaches_crash_point(host, operation) {
            self.story.tell(self.name, format!("{host} crashes after {operation}"));
            return pending().await;
        }
        sleep(verdict.after).await;
        if verdict.fails_after && result.is_ok() {
            self.story.tell(self.name, format!("{operation} is done, but reported as failed"));
            return Err(E::unavailable("the connection broke after the commit"));
        }
        result
    }

    fn reaches_crash_point(&self, host: &str, operation: &str) -> bool {
        let mut state = self.state.lock();
        let reached = state.crash_points.iter().position(|point| point.host == host && point.operation == operation);
        let reached = reached.map(|number| state.crash_points.remove(number).host);
        let crashes = reached.is_some();
        state.crashing.extend(reached);
        crashes
    }

    fn draw(&self, kind: Kind) -> Verdict {
        let mut state = self.state.lock();
        let State { faults, random, .. } = &mut *state;
        let longest = 2 + faults.delay_ms;
        let [before, after] = [(); 2].map(|()| Duration::from_millis(random.random_range(0..=longest)));
        let (fails, lies) = (random.random_bool(faults.fail_before), random.random_bool(faults.fail_after));
        let is_write = kind == Kind::Write;
        let outlives_caller = random.random_bool(0.5) && is_write;
        let fails_before =
            if faults.is_full && is_write { Some("the disk is full") } else { fails.then_some("the connection broke before the commit") };
        let verdict = Verdict { before, after, fails_before, fails_after: lies && is_write, outlives_caller };
        state.calls += 1;
        state.failed += u64::from(verdict.fails_before.is_some() || verdict.fails_after);
        verdict
    }
}

/// Fate of one call.
struct Verdict {
    before: Duration,
    after: Duration,
    fails_before: Option<&'static str>,
    fails_after: bool,
    outlives_caller: bool,
}

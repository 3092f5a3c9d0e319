//! Load generator: workers that send requests continuously, and their statistics.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{client::Client, eventually};

/// Minimum interval between two requests of a worker, so that the services do not run out of CPU.
const REQUEST_INTERVAL: Duration = Duration::from_millis(5);

/// Sends one request per call. An error is a failed request.
pub type Worker = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send>;

/// Running load.
#[derive(Debug)]
pub struct Load {
    workers: JoinSet<()>,
    statistics: Arc<Statistics>,
}

/// Statistics of a load.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Number of requests.
    pub requests: usize,
    /// Failure messages.
    pub failures: Vec<String>,
    /// Longest time without a successful response, over all workers.
    pub longest_gap: Duration,
    /// Longest request duration.
    pub slowest: Duration,
}

#[derive(Debug)]
struct Statistics {
    stop: AtomicBool,
    /// Time of the last success, and totals.
    totals: Mutex<(Instant, Outcome)>,
}

impl Load {
    /// Starts the workers. Each one sends requests until the load is stopped.
    pub fn start(workers: impl IntoIterator<Item = Worker>) -> Self {
        let outcome = Outcome { requests: 0, failures: Vec::new(), longest_gap: Duration::ZERO, slowest: Duration::ZERO };
        let statistics = Arc::new(Statistics { stop: AtomicBool::new(false), totals: Mutex::new((Instant::now(), outcome)) });
        let mut tasks = JoinSet::new();
        for mut worker in workers {
            let statistics = statistics.clone();
            tasks.spawn(async move {
                let mut ticks = interval(REQUEST_INTERVAL);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !statistics.stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let started = Instant::now();
                    let result = worker().await;
                    statistics.record(started, result);
                }
            });
        }
        Self { workers: tasks, statistics }
    }

    /// Waits for this number of further requests. Only a load without any progress is a failure.
    pub async fn wait_for_more_requests(&self, requests: usize) {
        let mut completed = self.requests();
        let target = completed + requests;
        while completed < target {
            completed = eventually(async || Some(self.requests()).filter(|now| *now > completed)).await;
        }
    }

    fn requests(&self) -> usize {
        self.statistics.lock().1.requests
    }

    /// Returns the current statistics.
    pub fn snapshot(&self) -> Outcome {
        self.statistics.lock().1.clone()
    }

    /// Stops after the pending responses.
    pub async fn stop(mut self) -> Outcome {
        self.statistics.stop.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker.expect("a worker does not panic");
        }
        self.snapshot()
    }

    /// Stops, asserts that no request failed, and returns the number of requests.
    pub async fn stop_without_failures(self) -> usize {
        let Outcome { requests, failures, .. } = self.stop().await;
        assert!(failures.is_empty(), "{} of {requests} failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
        requests
    }
}

/// Worker that reads one path.
pub fn reader(client: &Client, path: &str) -> Worker {
    let (client, path) = (client.clone(), path.to_owned());
    Box::new(move || {
        let request = client.get(&path);
        Box::pin(async move {
            match request.attempt().await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("GET: {} {}", answer.status, answer.text())),
                Err(error) => Err(format!("GET: {error:?}")),
            }
        })
    })
}

impl Statistics {
    fn lock(&self) -> MutexGuard<'_, (Instant, Outcome)> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, started: Instant, result: Result<(), String>) {
        let now = Instant::now();
        let (last, outcome) = &mut *self.lock();
        outcome.requests += 1;
        outcome.slowest = outcome.slowest.max(now - started);
        match result {
            Ok(()) => {
                outcome.longest_gap = outcome.longest_gap.max(now - *last);
                *last = now;
            }
            Err(failure) => outcome.failures.push(failure),
        }
    }
}

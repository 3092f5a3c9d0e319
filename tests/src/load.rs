//! Workers that never stop asking, and what came of it.

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

/// What a worker waits between two requests, so that the processes are not short of processor time.
const PAUSE: Duration = Duration::from_millis(5);

/// Makes one request each time it is asked; an error is a failed one.
pub type Worker = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send>;

/// Requests, until it is stopped.
#[derive(Debug)]
pub struct Load {
    workers: JoinSet<()>,
    seen: Arc<Seen>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How many there were.
    pub requests: usize,
    /// Why those failed that did.
    pub failures: Vec<String>,
    /// The longest time in which no request, of all workers, was answered as it should be.
    pub longest_gap: Duration,
    /// The longest time that one request took.
    pub slowest: Duration,
}

#[derive(Debug)]
struct Seen {
    stop: AtomicBool,
    last: Mutex<(Instant, Outcome)>,
}

impl Load {
    /// Each worker is asked again and again.
    pub fn start(workers: impl IntoIterator<Item = Worker>) -> Self {
        let outcome = Outcome { requests: 0, failures: Vec::new(), longest_gap: Duration::ZERO, slowest: Duration::ZERO };
        let seen = Arc::new(Seen { stop: AtomicBool::new(false), last: Mutex::new((Instant::now(), outcome)) });
        let mut set = JoinSet::new();
        for mut worker in workers {
            let seen = seen.clone();
            set.spawn(async move {
                let mut pace = interval(PAUSE);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !seen.stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let asked = Instant::now();
                    let result = worker().await;
                    seen.note(asked, result);
                }
            });
        }
        Self { workers: set, seen }
    }

    /// Waits for so many more requests.
    pub async fn wait_for_more_requests(&self, requests: usize) {
        let enough = self.seen.lock().1.requests + requests;
        eventually(async || (self.seen.lock().1.requests >= enough).then_some(())).await;
    }

    /// How it stands.
    pub fn snapshot(&self) -> Outcome {
        self.seen.lock().1.clone()
    }

    /// Stops, when the last answers have come.
    pub async fn stop(mut self) -> Outcome {
        self.seen.stop.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker.expect("a worker does not panic");
        }
        self.snapshot()
    }

    /// Stops; none may have failed. How many there were.
    pub async fn none_failed(self) -> usize {
        let Outcome { requests, failures, .. } = self.stop().await;
        assert!(failures.is_empty(), "{} of {requests} failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
        requests
    }
}

/// Reads one path.
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

impl Seen {
    fn lock(&self) -> MutexGuard<'_, (Instant, Outcome)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, asked: Instant, result: Result<(), String>) {
        let now = Instant::now();
        let (last, outcome) = &mut *self.lock();
        outcome.requests += 1;
        outcome.slowest = outcome.slowest.max(now - asked);
        match result {
            Ok(()) => {
                outcome.longest_gap = outcome.longest_gap.max(now - *last);
                *last = now;
            }
            Err(failure) => outcome.failures.push(failure),
        }
    }
}

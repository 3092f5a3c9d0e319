//! Readers that never stop asking, and what came of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use palisade_tests::{Client, eventually};
use tokio::task::JoinSet;

/// What a reader waits between two requests, so that the processes are not short of processor time.
const PAUSE: Duration = Duration::from_millis(5);

/// Reads of one path, until it is stopped.
pub(crate) struct Load {
    readers: JoinSet<()>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answers: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    pub(crate) fn start(readers_at_once: usize, client: &Client, path: &str) -> Self {
        let (mut readers, seen) = (JoinSet::new(), Arc::<Seen>::default());
        for _ in 0..readers_at_once {
            let (client, path, seen) = (client.clone(), path.to_owned(), seen.clone());
            readers.spawn(async move {
                let mut pace = tokio::time::interval(PAUSE);
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !seen.stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let failure = match client.get(&path).attempt().await {
                        Ok(answer) if answer.status == 200 => None,
                        Ok(answer) => Some(format!("{} {}", answer.status, answer.text())),
                        Err(error) => Some(error.to_string()),
                    };
                    seen.answers.fetch_add(1, Ordering::Relaxed);
                    seen.failures.lock().unwrap().extend(failure);
                }
            });
        }
        Self { readers, seen }
    }

    /// Waits for so many more answers.
    pub(crate) async fn more(&self, answers: usize) {
        let enough = self.seen.answers.load(Ordering::Relaxed) + answers;
        eventually(async || (self.seen.answers.load(Ordering::Relaxed) >= enough).then_some(())).await;
    }

    /// Stops; none may have failed. How many there were.
    pub(crate) async fn none_failed(mut self) -> usize {
        self.seen.stop.store(true, Ordering::Relaxed);
        while let Some(reader) = self.readers.join_next().await {
            reader.unwrap();
        }
        let (answers, failures) = (self.seen.answers.load(Ordering::Relaxed), self.seen.failures.lock().unwrap());
        assert!(failures.is_empty(), "{} of {answers} failed: {:?}", failures.len(), &failures[..failures.len().min(5)]);
        answers
    }
}

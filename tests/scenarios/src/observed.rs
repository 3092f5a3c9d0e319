//! Observations of a run: the calls as the caller and the servers see them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Code;

/// Start of a run, from which all times are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// Time since the start, whole milliseconds.
    pub(crate) fn elapsed_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn at(self, ms: u64) -> Instant {
        self.0 + Duration::from_millis(ms)
    }
}

/// Observations of a whole run.
#[derive(Debug)]
pub(crate) struct Observations {
    /// By group of calls.
    pub(crate) calls: Vec<Vec<CompletedCall>>,
    pub(crate) servers: BTreeMap<String, ServerLog>,
    /// Time at which the server under test has stopped.
    pub(crate) stopped_ms: Option<u64>,
    /// Metrics at the end, in the format of Prometheus.
    pub(crate) metrics: String,
}

/// A call as its caller saw it.
#[derive(Debug, Clone)]
pub(crate) struct CompletedCall {
    pub(crate) started_ms: u64,
    pub(crate) ended_ms: u64,
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) pushback: Option<String>,
}

/// A call as a server received it.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedCall {
    pub(crate) at_ms: u64,
    pub(crate) previous_attempts: u32,
    pub(crate) timeout_ms: Option<u64>,
}

/// Observations of one server.
#[derive(Debug, Default, Clone)]
pub(crate) struct ServerLog {
    pub(crate) calls: Vec<ReceivedCall>,
    pub(crate) running: u32,
    pub(crate) max_concurrent: u32,
    pub(crate) cancelled: u32,
    pub(crate) connections: u32,
}

impl ServerLog {
    /// Adds the observations of another server, whose calls are sorted in by their time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls.extend(other.calls.iter().cloned());
        self.calls.sort_by_key(|call| call.at_ms);
        self.max_concurrent += other.max_concurrent;
        self.cancelled += other.cancelled;
        self.connections += other.connections;
    }
}

/// Log of one server, which all its connections share.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    epoch: Epoch,
    log: Arc<Mutex<ServerLog>>,
}

impl Log {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { epoch, log: Arc::default() }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn connected(&self) {
        self.log.lock().connections += 1;
    }

    /// Records a received call, which runs until the guard is dropped.
    pub(crate) fn received(&self, headers: &HeaderMap) -> Running {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut log = self.log.lock();
        log.calls.push(ReceivedCall {
            at_ms: self.epoch.elapsed_ms(),
            previous_attempts: text("grpc-previous-rpc-attempts").and_then(|text| text.parse().ok()).unwrap_or(0),
            timeout_ms: text("grpc-timeout").and_then(timeout_ms),
        });
        log.running += 1;
        log.max_concurrent = log.max_concurrent.max(log.running);
        Running { log: self.log.clone(), answered: false }
    }

    /// Takes the observations.
    pub(crate) fn take(&self) -> ServerLog {
        std::mem::take(&mut self.log.lock())
    }
}

/// A received call without an answer.
#[derive(Debug)]
pub(crate) struct Running {
    log: Arc<Mutex<ServerLog>>,
    answered: bool,
}

impl Running {
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut log = self.log.lock();
        log.running = log.running.saturating_sub(1);
        log.cancelled += u32::from(!self.answered);
    }
}

/// Parses a `grpc-timeout` to whole milliseconds.
fn timeout_ms(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    match unit {
        'H' => number.checked_mul(3_600_000),
        'M' => number.checked_mul(60_000),
        'S' => number.checked_mul(1_000),
        'm' => Some(number),
        'u' => Some(number / 1_000),
        'n' => Some(number / 1_000_000),
        _ => None,
    }
}

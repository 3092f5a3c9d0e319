//! Metrics of retries.

/// Why a failed call was not retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryDenied {
    /// The method is not idempotent.
    NotIdempotent,
    /// The request is a stream or too long to buffer.
    Committed,
    /// Our own caller retries it.
    CallerRetries,
    /// All attempts were made.
    Attempts,
    /// The server forbids it.
    Pushback,
    /// The deadline is too near.
    Deadline,
    /// Too many calls to the target failed.
    Tokens,
    /// Too many retries are in flight.
    Concurrency,
    /// The inner service was not ready at once.
    NotReady,
}

impl RetryDenied {
    const ALL: [(Self, &'static str); 9] = [
        (Self::NotIdempotent, "not_idempotent"),
        (Self::Committed, "committed"),
        (Self::CallerRetries, "caller_retries"),
        (Self::Attempts, "attempts"),
        (Self::Pushback, "pushback"),
        (Self::Deadline, "deadline"),
        (Self::Tokens, "tokens"),
        (Self::Concurrency, "concurrency"),
        (Self::NotReady, "not_ready"),
    ];
}

/// Metric handles of one target, looked up once.
#[derive(Debug)]
pub(super) struct Metrics {
    target: &'static str,
    exhausted: metrics::Counter,
    denied: [metrics::Counter; RetryDenied::ALL.len()],
}

impl Metrics {
    pub(super) fn new(target: &'static str) -> Self {
        Self {
            target,
            exhausted: crate::counter!("palisade.retry.budget.exhausted", "target" => target),
            denied: RetryDenied::ALL.map(|(_, reason)| crate::counter!("palisade.retries.denied", "target" => target, "reason" => reason)),
        }
    }

    pub(super) fn record_denied(&self, why: RetryDenied) {
        if matches!(why, RetryDenied::Tokens | RetryDenied::Concurrency) {
            self.exhausted.increment(1);
        }
        for ((reason, _), counter) in RetryDenied::ALL.iter().zip(&self.denied) {
            if *reason == why {
                counter.increment(1);
            }
        }
    }

    /// Records a call with `retries` further attempts, transparent ones separately (gRFC A96).
    /// Looked up here, because it is rare.
    pub(super) fn record_retries(&self, path: &str, retries: u32, transparent: bool) {
        let method = || path.trim_start_matches('/').to_owned();
        if retries > 0 {
            crate::histogram!("grpc.client.call.retries", "grpc.method" => method(), "grpc.target" => self.target).record(retries);
        }
        if transparent {
            crate::histogram!("grpc.client.call.transparent_retries", "grpc.method" => method(), "grpc.target" => self.target).record(1);
        }
    }
}

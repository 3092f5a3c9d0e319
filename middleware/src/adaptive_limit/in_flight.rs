//! One request under way, until the last byte of its answer: it holds its place and learns what it says of the server.

use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;
use tonic::Code;

use super::{limiter::Permit, state::Sample};
use crate::{
    body::{End, BodyObserver},
    grpc_status,
    rejection::Rejection,
    respond::Protocol,
};

/// A request that runs.
///
/// Its latency is the time to the head of the answer: what comes after it is the caller's pace. It counts only once the answer is
/// complete. More than one DATA frame is a stream, whose head says nothing of the work; tonic and axum send any other answer in one.
#[derive(Debug)]
pub struct InFlightRequest {
    permit: Permit,
    protocol: Protocol,
    started: Instant,
    deadline: Option<Instant>,
    head: Option<Head>,
    frames: u32,
    ended: bool,
    stream: bool,
}

/// The beginning of an answer.
#[derive(Debug, Clone, Copy)]
struct Head {
    at: Instant,
    /// `None` if the trailers say it.
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// The work was done, or found not to be possible.
    Completed,
    /// Somebody waited for us in vain.
    TimedOut,
    /// It was not the work that took this time.
    Unknown,
}

impl InFlightRequest {
    pub(super) fn new(permit: Permit, protocol: Protocol, started: Instant, (deadline, stream): (Option<Instant>, bool)) -> Self {
        Self { permit, protocol, started, deadline, head: None, frames: 0, ended: false, stream }
    }

    /// Whether it keeps its place only until the answer begins: how long a stream lasts says nothing of the work, nor does a stream
    /// that waits for news do any.
    pub(super) fn is_stream(&self) -> bool {
        self.stream
    }

    /// A stream has begun, which is no sample of anything.
    pub(super) fn release_without_sample(mut self) {
        self.ended = true;
    }

    /// The answer begins.
    pub(super) fn record_head<R>(&mut self, response: &Response<R>) {
        let outcome = match self.protocol {
            Protocol::Http => Some(outcome_of_status(response.status())),
            Protocol::Grpc => outcome_from_headers(response.headers()),
        };
        self.head = Some(Head { at: Instant::now(), outcome });
    }

    /// There is no answer but a refusal.
    pub(super) fn record_rejection(&mut self, rejection: &Rejection) {
        self.finish(Instant::now(), outcome_of_code(rejection.reason().grpc));
    }

    fn finish(&mut self, at: Instant, outcome: Outcome) {
        self.ended = true;
        if self.frames > 1 {
            return;
        }
        let took = at.saturating_duration_since(self.started);
        self.permit.sample = match outcome {
            Outcome::Completed => Some(Sample::Completed(took)),
            Outcome::TimedOut => Some(Sample::TimedOut(took)),
            Outcome::Unknown => None,
        };
    }
}

/// A request that was not counted (`None`) is health or reflection, or there is no limit.
impl BodyObserver for Option<InFlightRequest> {
    type Entered<'a> = ();

    fn enter(&mut self) {}

    fn on_data(&mut self) {
        if let Some(running) = self {
            running.frames = running.frames.saturating_add(1);
        }
    }

    fn on_end(&mut self, end: End<'_>) {
        // The place is given back here, not when whoever reads the body is done with it.
        let Some(mut running) = self.take() else { return };
        let (End::Complete(trailers), Some(Head { at, outcome })) = (end, running.head) else { return };
        if let Some(outcome) = trailers.and_then(outcome_from_headers).or(outcome) {
            running.finish(at, outcome);
        }
    }
}

impl Drop for InFlightRequest {
    /// Nobody waited for the answer: out of time, or gone.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let now = Instant::now();
        let late = self.deadline.is_some_and(|deadline| deadline <= now);
        self.finish(now, if late { Outcome::TimedOut } else { Outcome::Unknown });
    }
}

fn outcome_from_headers(headers: &HeaderMap) -> Option<Outcome> {
    grpc_status::from_headers(headers).map(outcome_of_code)
}

fn outcome_of_code(code: Code) -> Outcome {
    match code {
        // Whoever answers so in time waited for another in vain. When our own time runs out the request is dropped.
        Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::ResourceExhausted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Outcome::Unknown,
        _ => Outcome::Completed,
    }
}

fn outcome_of_status(status: StatusCode) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Unknown,
        status if status.is_server_error() => Outcome::Unknown,
        _ => Outcome::Completed,
    }
}

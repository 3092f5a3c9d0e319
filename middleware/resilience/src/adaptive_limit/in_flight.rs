//! A request in flight until the last byte of its response: holds the permit and takes the latency
//! sample.

use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;
use tonic::Code;

use super::{limiter::Permit, state::Sample};
use crate::{
    body::{BodyObserver, End},
    grpc_status,
    rejection::Rejection,
    respond::Protocol,
    time_limit::TimeLimit,
};

/// A request in flight.
///
/// Its latency is the time to the response head, because the caller sets the pace afterwards. It is
/// sampled only once the response is complete. More than one DATA frame means a stream, whose head
/// says nothing about the work; tonic and axum send any other response in one frame.
#[derive(Debug)]
pub struct InFlightRequest {
    permit: Permit,
    protocol: Protocol,
    started: Instant,
    deadline: Option<TimeLimit>,
    head: Option<Head>,
    frames: u32,
    ended: bool,
    stream: bool,
}

/// Head of the response.
#[derive(Debug, Clone, Copy)]
struct Head {
    at: Instant,
    /// `None` if the status is in the trailers.
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// The work was done, or was found to be impossible.
    Completed,
    /// The deadline passed before the response.
    TimedOut,
    /// The latency is not that of the work.
    Unknown,
}

impl InFlightRequest {
    pub(super) fn new(permit: Permit, protocol: Protocol, started: Instant, (deadline, stream): (Option<TimeLimit>, bool)) -> Self {
        Self { permit, protocol, started, deadline, head: None, frames: 0, ended: false, stream }
    }

    /// Whether the permit is held only until the response head. The duration of a stream says
    /// nothing about the work, and a stream that waits for events does none.
    pub(super) fn is_stream(&self) -> bool {
        self.stream
    }

    /// Releases the permit of a stream without a sample.
    pub(super) fn release_without_sample(mut self) {
        self.ended = true;
    }

    /// Records the response head.
    pub(super) fn record_head<R>(&mut self, response: &Response<R>) {
        let outcome = match self.protocol {
            Protocol::Http => Some(outcome_of_status(response.status())),
            Protocol::Grpc => outcome_from_headers(response.headers()),
        };
        self.head = Some(Head { at: Instant::now(), outcome });
    }

    /// Records a rejection in place of a response.
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

/// `None`: a health or reflection request, or the limit is disabled.
impl BodyObserver for Option<InFlightRequest> {
    type Entered<'a> = ();

    fn enter(&mut self) {}

    fn on_data(&mut self) {
        if let Some(running) = self {
            running.frames = running.frames.saturating_add(1);
        }
    }

    fn on_end(&mut self, end: End<'_>) {
        // The permit is released here, not when the reader drops the body.
        let Some(mut running) = self.take() else { return };
        let (End::Complete(trailers), Some(Head { at, outcome })) = (end, running.head) else { return };
        if let Some(outcome) = trailers.and_then(outcome_from_headers).or(outcome) {
            running.finish(at, outcome);
        }
    }
}

impl Drop for InFlightRequest {
    /// Dropped without a response: timed out or cancelled by the caller.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let now = Instant::now();
        // A time that the caller chose says nothing about the handler.
        let late = self.deadline.is_some_and(|limit| limit.has_passed(now) && limit.is_evidence(self.started));
        self.finish(now, if late { Outcome::TimedOut } else { Outcome::Unknown });
    }
}

fn outcome_from_headers(headers: &HeaderMap) -> Option<Outcome> {
    grpc_status::from_headers(headers).map(outcome_of_code)
}

fn outcome_of_code(code: Code) -> Outcome {
    match code {
        // A response with these codes within the deadline means that a dependency failed or timed
        // out. When our own deadline passes, the request is dropped instead.
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

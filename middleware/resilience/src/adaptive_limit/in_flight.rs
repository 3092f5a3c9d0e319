//! A running request: holds the permit and takes the latency sample.

use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tonic::Code;

use super::{limiter::Permit, state::Sample};
use crate::{grpc_status, prefetched_body::PrefetchedBody, protocol::Protocol, rejection::Rejection, time_limit::TimeLimit};

/// A running request. It ends with the response, or with the head of a stream; the peer reads the
/// response at its own pace, without the permit.
///
/// Its latency is the time to the response. It is sampled only if the response was complete by
/// then. More than one DATA frame means a stream, whose head says nothing about the work; tonic and
/// axum send any other response in one frame.
#[derive(Debug)]
pub(super) struct InFlightRequest {
    permit: Permit,
    protocol: Protocol,
    started: Instant,
    deadline: Option<TimeLimit>,
    ended: bool,
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
    pub(super) fn new(permit: Permit, protocol: Protocol, started: Instant, deadline: Option<TimeLimit>) -> Self {
        Self { permit, protocol, started, deadline, ended: false }
    }

    /// Ends the request with a response that is a stream, without a sample.
    pub(super) fn end_with_stream(mut self) {
        self.ended = true;
    }

    /// Ends the request with this response.
    pub(super) fn end_with<B: Body>(mut self, response: &Response<PrefetchedBody<B>>) {
        let body = response.body();
        let in_head = match self.protocol {
            Protocol::Http => Some(outcome_of_status(response.status())),
            Protocol::Grpc => outcome_from_headers(response.headers()),
        };
        let outcome = body.trailers().and_then(outcome_from_headers).or(in_head);
        let is_whole = body.is_complete() && !body.has_failed() && body.data_frames() <= 1;
        self.finish(Instant::now(), outcome.filter(|_| is_whole).unwrap_or(Outcome::Unknown));
    }

    /// Ends the request with a rejection in place of a response.
    pub(super) fn end_with_rejection(mut self, rejection: &Rejection) {
        self.finish(Instant::now(), outcome_of_code(rejection.reason().grpc));
    }

    fn finish(&mut self, at: Instant, outcome: Outcome) {
        self.ended = true;
        let took = at.saturating_duration_since(self.started);
        self.permit.sample = match outcome {
            Outcome::Completed => Some(Sample::Completed(took)),
            Outcome::TimedOut => Some(Sample::TimedOut(took)),
            Outcome::Unknown => None,
        };
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

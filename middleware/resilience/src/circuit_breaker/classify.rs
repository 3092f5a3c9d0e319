//! Classifies responses and rejections as evidence about the target's health.

use std::{error::Error, time::Duration};

use http::{HeaderMap, Response, StatusCode};
use tokio::time::Instant;
use tonic::Code;

use super::event::CallOutcome;
use crate::{
    body::End,
    deadline, grpc_status,
    protocol::Protocol,
    rejection::{self, Rejection, Retry, TransportError, reasons},
    retry,
    time_limit::NoEvidence,
};

/// Classification of a response, before the time that the call had is taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classification {
    /// This outcome, whatever the time.
    Outcome(CallOutcome),
    /// The call timed out: a failure if it had enough time.
    TimedOut,
    /// The call timed out after a time that says nothing about the target, because the caller chose
    /// it.
    NoEvidence,
    /// Not sent: there is no connection, and reconnecting is in backoff after the last failure. No
    /// news about an endpoint, but a failure of a target without other endpoints.
    ConnectBackoff,
}

impl From<CallOutcome> for Classification {
    fn from(verdict: CallOutcome) -> Self {
        Self::Outcome(verdict)
    }
}

/// Classifies the head of a response and returns the retry delay that the target asked for. `None`
/// if the status is still to come, or, over HTTP, if a successful response may still be truncated.
pub(super) fn classify_head<B>(
    protocol: Protocol,
    answer: &Result<Response<B>, Rejection>,
    target: &str,
) -> Option<(Classification, Option<Duration>)> {
    match answer {
        Err(rejection) => Some((classify_rejection(rejection), None)),
        Ok(response) if protocol == Protocol::Http => match classify_http_status(response.status()) {
            CallOutcome::Success => None,
            verdict => Some((verdict.into(), retry_delay(retry::pushback_of_http(response)))),
        },
        Ok(response) => {
            let finding = unless_chosen_by_caller(classify_grpc_head(response, target)?, response.extensions().get().copied());
            Some((finding, unless_success(finding, || retry_delay(retry::pushback_of_head(response)))))
        }
    }
}

/// A timeout is no evidence if the response is marked so.
pub(super) fn unless_chosen_by_caller(finding: Classification, mark: Option<NoEvidence>) -> Classification {
    let timed_out = finding == Classification::TimedOut;
    if timed_out && mark.is_some_and(|mark| mark.applies(Instant::now()).is_some()) { Classification::NoEvidence } else { finding }
}

/// Classifies the end of a body; `None` if the caller dropped it.
pub(super) fn classify_end(protocol: Protocol, end: End<'_>, target: &str) -> Option<(Classification, Option<Duration>)> {
    match (protocol, end) {
        (Protocol::Grpc, End::Complete(trailers)) => {
            let finding = classify_trailers(trailers, target);
            Some((finding, unless_success(finding, || trailers.and_then(retry_after_hint))))
        }
        // The head was successful, and the reader may drop the rest.
        (Protocol::Http, End::Complete(_) | End::Dropped) => Some((CallOutcome::Success.into(), None)),
        (_, End::Late) => Some((Classification::TimedOut, None)),
        (_, End::Failed) => Some((CallOutcome::Failure.into(), None)),
        (Protocol::Grpc, End::Dropped) => None,
    }
}

fn classify_grpc_head<B>(response: &Response<B>, target: &str) -> Option<Classification> {
    match grpc_status::from_headers(response.headers()) {
        Some(code) => Some(classify_code(code, response.headers(), target)),
        None if response.status() == StatusCode::OK => None,
        None => Some(classify_http_status(response.status()).into()),
    }
}

/// A gRPC body without a status is truncated.
fn classify_trailers(trailers: Option<&HeaderMap>, target: &str) -> Classification {
    let status = trailers.and_then(|trailers| Some(classify_code(grpc_status::from_headers(trailers)?, trailers, target)));
    status.unwrap_or(Classification::Outcome(CallOutcome::Failure))
}

/// Of the local rejections only connection failures and timeouts are evidence about the target.
fn classify_rejection(rejection: &Rejection) -> Classification {
    if rejection.is_without_evidence() {
        return Classification::NoEvidence;
    }
    let Some(source) = rejection.source() else { return CallOutcome::Neutral.into() };
    match source.downcast_ref::<TransportError>() {
        Some(failure) if failure.connect_backoff => Classification::ConnectBackoff,
        Some(_) => CallOutcome::Failure.into(),
        None if source.is::<deadline::Elapsed>() => Classification::TimedOut,
        // The error of a client from elsewhere.
        None if *rejection.reason() == reasons::UPSTREAM_UNAVAILABLE => CallOutcome::Failure.into(),
        None => CallOutcome::Neutral.into(),
    }
}

fn classify_code(code: Code, headers: &HeaderMap, target: &str) -> Classification {
    match code {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::DataLoss | Code::DeadlineExceeded
            if rejection::is_from_dependency(headers, target) =>
        {
            CallOutcome::Neutral.into()
        }
        Code::Unavailable if headers.contains_key(rejection::OVERLOADED_HEADER) => CallOutcome::Throttled.into(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::DataLoss => CallOutcome::Failure.into(),
        Code::DeadlineExceeded => Classification::TimedOut,
        Code::NotFound if crate::planted!("client errors taken for failures") => CallOutcome::Failure.into(),
        Code::ResourceExhausted => CallOutcome::Throttled.into(),
        Code::Cancelled => CallOutcome::Cancelled.into(),
        // The server works, even if it rejects the request.
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => CallOutcome::Success.into(),
    }
}

/// Classifies a response that is not gRPC: of an HTTP server, or of a proxy in front or in place of
/// a gRPC server.
fn classify_http_status(status: StatusCode) -> CallOutcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS => CallOutcome::Throttled,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => CallOutcome::Success,
        status if status.is_server_error() => CallOutcome::Failure,
        _ => CallOutcome::Success,
    }
}

/// Returns the retry delay in the trailers.
fn retry_after_hint(trailers: &HeaderMap) -> Option<Duration> {
    retry_delay(retry::pushback(trailers))
}

/// A successful response carries no retry delay, so its headers are not searched.
fn unless_success(finding: Classification, hint: impl FnOnce() -> Option<Duration>) -> Option<Duration> {
    if finding == CallOutcome::Success.into() { None } else { hint() }
}

fn retry_delay(advice: Retry) -> Option<Duration> {
    match advice {
        Retry::After(wait) => Some(wait),
        Retry::Unspecified | Retry::Never => None,
    }
}

#[cfg(test)]
mod tests;

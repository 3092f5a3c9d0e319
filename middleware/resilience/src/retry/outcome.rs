//! Outcome of one attempt, classified for the retry decision.

use std::{
    error::Error,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tonic::Code;

use super::{peek::PeekedBody, pushback, pushback_of_head, pushback_of_http};
use crate::{
    deadline, grpc_status,
    protocol::Protocol,
    rejection::{self, FAILURE_ORIGIN_HEADER, PUSHBACK_HEADER, Rejection, Retry, TransportError},
    time_limit::NoEvidence,
};

/// Response to one attempt.
pub(super) type Answer<R> = Result<Response<PeekedBody<R>>, Rejection>;

/// Outcome of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server works, even if it rejected the request.
    Completed,
    /// Rejected locally: no permit, no credentials, circuit open.
    Rejected,
    /// The server has not received the request.
    NeverSent,
    /// Not sent: there is no connection, and reconnecting is in backoff. An immediate retry would
    /// fail the same way.
    ConnectBackoff,
    /// The connection or the stream ended before the response did. The server may have acted on the
    /// request.
    ConnectionLost,
    /// Failed, and the server may have acted on the request.
    Failed(Retry),
    /// No evidence against the target: the caller used up its quota, or something behind the target
    /// failed.
    Excused(Retry),
    /// Timed out after a time that the caller chose, which says nothing about the target.
    CallerTimeout,
    /// Failed, and would fail again.
    NonRetryable,
}

/// Reads the body ahead if the head has no status.
pub(super) fn poll_read_ahead<R: Body + Unpin>(answer: &mut Answer<R>, cx: &mut Context<'_>) -> Poll<()> {
    match answer {
        Ok(response) if grpc_status::from_headers(response.headers()).is_none() && response.status() == StatusCode::OK => {
            response.body_mut().poll_read(cx)
        }
        _ => Poll::Ready(()),
    }
}

pub(super) fn classify<R: Body>(protocol: Protocol, answer: &mut Answer<R>, target: &str) -> Outcome {
    let response = match answer {
        Err(rejection) => return classify_rejection(rejection),
        Ok(response) if protocol == Protocol::Http => return classify_http_status(response.status(), pushback_of_http(response)),
        Ok(response) => response,
    };
    if response.body().is_broken() {
        return Outcome::ConnectionLost;
    }
    let mark = response.extensions().get::<NoEvidence>().copied();
    let status = status_mut(response);
    match grpc_status::from_headers(status) {
        Some(Code::DeadlineExceeded) if mark.is_some_and(|mark| mark.applies(Instant::now()).is_some()) => Outcome::CallerTimeout,
        // Headers of a successful response are not searched for a pushback.
        Some(Code::Ok) => Outcome::Completed,
        Some(code) => match classify_code(code, pushback(status)) {
            Outcome::Failed(advice) if rejection::is_from_dependency(status, target) => Outcome::Excused(advice),
            outcome => outcome,
        },
        None if response.status() != StatusCode::OK => classify_http_status(response.status(), pushback_of_head(response)),
        None if response.body().has_ended() => Outcome::NonRetryable,
        // The status is still to come, too late for a retry.
        None => Outcome::Completed,
    }
}

fn classify_code(code: Code, advice: Retry) -> Outcome {
    match (code, advice) {
        // A quota is used up: retry only if the server says when.
        (Code::ResourceExhausted, Retry::Unspecified) => Outcome::NonRetryable,
        (Code::ResourceExhausted, advice) => Outcome::Excused(advice),
        (Code::Unavailable | Code::DeadlineExceeded, advice) => Outcome::Failed(advice),
        (Code::Unknown | Code::Internal | Code::DataLoss, Retry::Never) => Outcome::Failed(Retry::Never),
        (Code::Unknown | Code::Internal | Code::DataLoss | Code::Cancelled, _) => Outcome::NonRetryable,
        _ => Outcome::Completed,
    }
}

fn classify_rejection(rejection: &Rejection) -> Outcome {
    if rejection.is_without_evidence() {
        return Outcome::CallerTimeout;
    }
    let Some(source) = rejection.source() else { return Outcome::Rejected };
    match source.downcast_ref::<TransportError>() {
        Some(failure) if failure.connect_backoff => Outcome::ConnectBackoff,
        Some(failure) if failure.never_sent => Outcome::NeverSent,
        Some(_) => Outcome::ConnectionLost,
        None if source.is::<deadline::Elapsed>() => Outcome::Failed(Retry::Unspecified),
        None => Outcome::Rejected,
    }
}

/// Classifies an HTTP status: of an HTTP server, or of a proxy in front or in place of a gRPC
/// server (gRPC, "HTTP to gRPC status code mapping").
fn classify_http_status(status: StatusCode, advice: Retry) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS if advice == Retry::Unspecified => Outcome::NonRetryable,
        StatusCode::TOO_MANY_REQUESTS => Outcome::Excused(advice),
        StatusCode::REQUEST_TIMEOUT | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Outcome::Failed(advice)
        }
        status if status.is_server_error() => Outcome::NonRetryable,
        _ => Outcome::Completed,
    }
}

/// Returns the headers that carry the status: the trailers if they came first, else the head.
fn status_mut<R: Body>(response: &mut Response<PeekedBody<R>>) -> &mut HeaderMap {
    if response.body_mut().trailers_mut().is_some() {
        return response.body_mut().trailers_mut().expect("checked in the line before");
    }
    response.headers_mut()
}

/// Names `target` as the failure origin, unless the response names a service behind it.
pub(super) fn set_failure_origin<R: Body>(protocol: Protocol, answer: Answer<R>, target: &'static str) -> Answer<R> {
    let mut response = answer.map_err(|rejection| rejection.with_origin(target))?;
    if protocol == Protocol::Http {
        return Ok(response);
    }
    status_mut(&mut response).entry(FAILURE_ORIGIN_HEADER).or_insert(HeaderValue::from_static(target));
    Ok(response)
}

/// Sets the pushback that tells the caller not to retry, because retries were made here.
pub(super) fn forbid_retry<R: Body>(protocol: Protocol, answer: Answer<R>) -> Answer<R> {
    let mut response = answer.map_err(|rejection| rejection.with_retry(Retry::Never))?;
    if protocol == Protocol::Http {
        return Ok(response);
    }
    status_mut(&mut response).insert(PUSHBACK_HEADER, HeaderValue::from_static("-1"));
    Ok(response)
}

//! What an answer says about the target that gave it.

use std::{error::Error, time::Duration};

use http::{HeaderMap, Response, StatusCode};
use tonic::Code;

use super::transition::Verdict;
use crate::{
    body::End,
    client, deadline, grpc_status,
    rejection::{FAILURE_ORIGIN_HEADER, Rejection, Retry},
    respond::Protocol,
    retry,
};

/// What an answer says, before the time that the call had is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// This, whatever the time.
    Verdict(Verdict),
    /// The time ran out: a failure if there was enough of it.
    TimedOut,
    /// There is no connection and none was tried, so soon after the last failure: nothing new about an endpoint, but a target without
    /// any other endpoint is as good as dead.
    NotTried,
}

impl From<Verdict> for Finding {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// What the head of an answer says, with how long the target asks us to stay away; `None` while the status is still to come, or, over HTTP,
/// as long as a body may break off that began well.
pub(super) fn at_head<B>(protocol: Protocol, answer: &Result<Response<B>, Rejection>, target: &str) -> Option<(Finding, Option<Duration>)> {
    match answer {
        Err(rejection) => Some((of_rejection(rejection), None)),
        Ok(response) if protocol == Protocol::Http => match of_http(response.status()) {
            Verdict::Success => None,
            verdict => Some((verdict.into(), wait(retry::advice_of_http(response)))),
        },
        Ok(response) => {
            let finding = of_head(response, target)?;
            Some((finding, unless_well(finding, || wait(retry::advice_of_head(response)))))
        }
    }
}

/// The same of the end of its body; `None` if nobody waited for it.
pub(super) fn at_end(protocol: Protocol, end: End<'_>, target: &str) -> Option<(Finding, Option<Duration>)> {
    match (protocol, end) {
        (Protocol::Grpc, End::Complete(trailers)) => {
            let finding = of_trailers(trailers, target);
            Some((finding, unless_well(finding, || trailers.and_then(hint))))
        }
        // The head was well, and whoever has it may leave the rest.
        (Protocol::Http, End::Complete(_) | End::Dropped) => Some((Verdict::Success.into(), None)),
        (Protocol::Http, End::Late) => Some((Finding::TimedOut, None)),
        (_, End::Failed | End::Late) => Some((Verdict::Failure.into(), None)),
        (Protocol::Grpc, End::Dropped) => None,
    }
}

fn of_head<B>(response: &Response<B>, target: &str) -> Option<Finding> {
    match grpc_status::code_in(response.headers()) {
        Some(code) => Some(of_code(code, response.headers(), target)),
        None if response.status() == StatusCode::OK => None,
        None => Some(of_http(response.status()).into()),
    }
}

/// A body that ends without a status was cut off.
fn of_trailers(trailers: Option<&HeaderMap>, target: &str) -> Finding {
    let status = trailers.and_then(|trailers| Some(of_code(grpc_status::code_in(trailers)?, trailers, target)));
    status.unwrap_or(Finding::Verdict(Verdict::Failure))
}

/// Of the refusals inside the breaker only those by the connection and by the clock speak of the target; all else is our own doing.
fn of_rejection(rejection: &Rejection) -> Finding {
    let Some(source) = rejection.source() else { return Verdict::Neutral.into() };
    match source.downcast_ref::<client::Failure>() {
        Some(failure) if failure.not_tried => Finding::NotTried,
        Some(_) => Verdict::Failure.into(),
        None if source.is::<deadline::Elapsed>() => Finding::TimedOut,
        None => Verdict::Neutral.into(),
    }
}

fn of_code(code: Code, headers: &HeaderMap, target: &str) -> Finding {
    let of_another = || headers.get(FAILURE_ORIGIN_HEADER).is_some_and(|origin| origin.as_bytes() != target.as_bytes());
    match code {
        Code::Unavailable | Code::Unknown | Code::Internal | Code::DataLoss | Code::DeadlineExceeded if of_another() => {
            Verdict::Neutral.into()
        }
        Code::Unavailable | Code::Unknown | Code::Internal | Code::DataLoss => Verdict::Failure.into(),
        Code::DeadlineExceeded => Finding::TimedOut,
        Code::ResourceExhausted => Verdict::Throttled.into(),
        Code::Cancelled => Verdict::Cancelled.into(),
        // The server works, whatever it thinks of the request.
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Verdict::Success.into(),
    }
}

/// An answer that is not gRPC: of an HTTP server, or of something that stands before a gRPC server, or instead of it.
fn of_http(status: StatusCode) -> Verdict {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Verdict::Throttled,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Verdict::Success,
        status if status.is_server_error() => Verdict::Failure,
        _ => Verdict::Success,
    }
}

/// How long trailers ask us to stay away.
fn hint(trailers: &HeaderMap) -> Option<Duration> {
    wait(retry::advice(trailers))
}

/// Nobody asks us to stay away who is well: the usual answer is not searched for a `hint`.
fn unless_well(finding: Finding, hint: impl FnOnce() -> Option<Duration>) -> Option<Duration> {
    if finding == Verdict::Success.into() { None } else { hint() }
}

fn wait(advice: Retry) -> Option<Duration> {
    match advice {
        Retry::After(wait) => Some(wait),
        Retry::Silent | Retry::Never => None,
    }
}

#[cfg(test)]
mod tests;

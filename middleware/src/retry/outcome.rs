//! What became of one attempt, as far as trying again goes.

use std::{
    error::Error,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;
use opentelemetry::KeyValue;
use tonic::Code;

use super::{advice, advice_of_head, advice_of_http, peek::Peeked};
use crate::{
    client, deadline, grpc_status,
    rejection::{FAILURE_ORIGIN_HEADER, PUSHBACK_HEADER, Rejection, Retry},
    respond::Protocol,
};

/// The answer to one attempt.
pub(super) type Answer<R> = Result<Response<Peeked<R>>, Rejection>;

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server works, whatever it thinks of the request.
    Answered,
    /// We refused it ourselves: no place, no credentials, an open breaker.
    Refused,
    /// The server has not seen it.
    Unsent,
    /// There was no connection to send it on, and it was too soon to try for another: at once it would be the same.
    NotTried,
    /// Its connection, or its stream alone, ended before the answer did. The server may have acted on it.
    Lost,
    /// It failed, and the server may have acted on it.
    Failed(Retry),
    /// It failed, and would fail again.
    Final,
}

impl Outcome {
    /// Its name on a span.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Unsent => "unsent",
            Self::NotTried => "not_tried",
            Self::Lost => "lost",
            Self::Failed(_) => "failed",
            Self::Final => "final",
        }
    }
}

/// Waits for the first frame of the body where the head does not tell the status.
pub(super) fn look<R: Body + Unpin>(answer: &mut Answer<R>, cx: &mut Context<'_>) -> Poll<()> {
    match answer {
        Ok(response) if grpc_status::code_in(response.headers()).is_none() && response.status() == StatusCode::OK => {
            response.body_mut().poll_read(cx)
        }
        _ => Poll::Ready(()),
    }
}

pub(super) fn of<R: Body>(protocol: Protocol, answer: &mut Answer<R>) -> Outcome {
    let response = match answer {
        Err(rejection) => return of_rejection(rejection),
        Ok(response) if protocol == Protocol::Http => return of_http(response.status(), advice_of_http(response)),
        Ok(response) => response,
    };
    if response.body().is_broken() {
        return Outcome::Lost;
    }
    let status = status_mut(response);
    match grpc_status::code_in(status) {
        // The usual answer is not searched for advice.
        Some(Code::Ok) => Outcome::Answered,
        Some(code) => of_code(code, advice(status)),
        None if response.status() != StatusCode::OK => of_http(response.status(), advice_of_head(response)),
        None if response.body().has_ended() => Outcome::Final,
        // Its status is still to come, and too late for us.
        None => Outcome::Answered,
    }
}

fn of_code(code: Code, advice: Retry) -> Outcome {
    match (code, advice) {
        // A quota of ours is used up: only if the server says when to come again.
        (Code::ResourceExhausted, Retry::Silent) => Outcome::Final,
        (Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted, advice) => Outcome::Failed(advice),
        (Code::Unknown | Code::Internal | Code::DataLoss, Retry::Never) => Outcome::Failed(Retry::Never),
        (Code::Unknown | Code::Internal | Code::DataLoss | Code::Cancelled, _) => Outcome::Final,
        _ => Outcome::Answered,
    }
}

fn of_rejection(rejection: &Rejection) -> Outcome {
    let Some(source) = rejection.source() else { return Outcome::Refused };
    match source.downcast_ref::<client::Failure>() {
        Some(failure) if failure.not_tried => Outcome::NotTried,
        Some(failure) if failure.unsent => Outcome::Unsent,
        Some(_) => Outcome::Lost,
        None if source.is::<deadline::Elapsed>() => Outcome::Failed(Retry::Silent),
        None => Outcome::Refused,
    }
}

/// Of an HTTP server; or something before a gRPC server answered, or instead of it (gRPC, "HTTP to gRPC status code mapping").
fn of_http(status: StatusCode, advice: Retry) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS if advice == Retry::Silent => Outcome::Final,
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Failed(advice),
        status if status.is_server_error() => Outcome::Final,
        _ => Outcome::Answered,
    }
}

/// The status that the attempt was answered with, as a span names it.
pub(super) fn status<R: Body>(protocol: Protocol, answer: &Answer<R>) -> KeyValue {
    match (protocol, answer) {
        (Protocol::Grpc, _) => KeyValue::new("rpc.status_code", grpc_status::name(code(answer))),
        (Protocol::Http, Ok(response)) => KeyValue::new("http.response.status_code", i64::from(response.status().as_u16())),
        (Protocol::Http, Err(rejection)) => KeyValue::new("error.type", rejection.reason().slug),
    }
}

/// The code that the attempt came to, as a caller would have been told it.
fn code<R: Body>(answer: &Answer<R>) -> Code {
    match answer {
        Err(rejection) => rejection.reason().grpc,
        Ok(response) if response.body().is_broken() => Code::Unavailable,
        Ok(response) => {
            let trailers = response.body().trailers().and_then(grpc_status::code_in);
            trailers.or_else(|| grpc_status::code_in(response.headers())).unwrap_or(Code::Unknown)
        }
    }
}

/// Where the status is: the trailers if they came first, else the head.
fn status_mut<R: Body>(response: &mut Response<Peeked<R>>) -> &mut HeaderMap {
    if response.body_mut().trailers_mut().is_some() {
        return response.body_mut().trailers_mut().expect("looked at in the line before");
    }
    response.headers_mut()
}

/// Names `target` as the one that failed, unless the answer names another behind it.
pub(super) fn blame<R: Body>(protocol: Protocol, answer: Answer<R>, target: &'static str) -> Answer<R> {
    let mut response = answer.map_err(|rejection| rejection.with_origin(target))?;
    if protocol == Protocol::Http {
        return Ok(response);
    }
    status_mut(&mut response).entry(FAILURE_ORIGIN_HEADER).or_insert(HeaderValue::from_static(target));
    Ok(response)
}

/// Tells whoever reads the answer that trying again was tried.
pub(super) fn exhausted<R: Body>(protocol: Protocol, answer: Answer<R>) -> Answer<R> {
    let mut response = answer.map_err(|rejection| rejection.with_retry(Retry::Never))?;
    if protocol == Protocol::Http {
        return Ok(response);
    }
    status_mut(&mut response).insert(PUSHBACK_HEADER, HeaderValue::from_static("-1"));
    Ok(response)
}

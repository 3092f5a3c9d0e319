//! Span event of a failed attempt, because log records are not copied into spans.

use std::time::Duration;

use http_body::Body;
use opentelemetry::KeyValue;
use tonic::Code;

use super::{
    call::Call,
    outcome::{Answer, Outcome},
};
use crate::{grpc_status, protocol::Protocol, trace};

/// Adds a span event for the failed attempt of `call`, which is retried after `pause`.
pub(super) fn record<R: Body>(call: &Call, outcome: Outcome, answer: &Answer<R>, pause: Duration) {
    let protocol = call.protocol();
    let [attempt, outcome_key, waits] = match protocol {
        Protocol::Grpc => ["app.rpc.attempt", "app.rpc.outcome", "app.rpc.backoff_ms"],
        Protocol::Http => ["app.http.attempt", "app.http.outcome", "app.http.backoff_ms"],
    };
    trace::add_event("retry", || {
        vec![
            KeyValue::new(attempt, i64::from(call.attempt)),
            KeyValue::new(outcome_key, outcome.name()),
            status_attribute(protocol, answer),
            KeyValue::new(waits, i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)),
        ]
    });
}

impl Outcome {
    /// Returns the value of the attribute.
    fn name(self) -> &'static str {
        match self {
            Self::Completed => "answered",
            Self::Rejected => "refused",
            Self::NeverSent => "unsent",
            Self::ConnectBackoff => "not_tried",
            Self::ConnectionLost => "lost",
            Self::Failed(_) | Self::Excused(_) => "failed",
            Self::CallerTimeout => "caller_timeout",
            Self::NonRetryable => "final",
        }
    }
}

/// Returns the status of the attempt as a span attribute.
fn status_attribute<R: Body>(protocol: Protocol, answer: &Answer<R>) -> KeyValue {
    match (protocol, answer) {
        (Protocol::Grpc, _) => KeyValue::new("rpc.status_code", grpc_status::name(effective_code(answer))),
        (Protocol::Http, Ok(response)) => KeyValue::new("http.response.status_code", i64::from(response.status().as_u16())),
        (Protocol::Http, Err(rejection)) => KeyValue::new("error.type", rejection.reason().slug),
    }
}

/// Returns the gRPC code of the attempt as a caller would have received it.
fn effective_code<R: Body>(answer: &Answer<R>) -> Code {
    match answer {
        Err(rejection) => rejection.reason().grpc,
        Ok(response) if response.body().is_broken() => Code::Unavailable,
        Ok(response) => {
            let trailers = response.body().trailers().and_then(grpc_status::from_headers);
            trailers.or_else(|| grpc_status::from_headers(response.headers())).unwrap_or(Code::Unknown)
        }
    }
}

//! Response outcome from head, trailers or truncation: one rule for metrics and spans.

use std::borrow::Cow;

use http::Response;
use tokio::time::Instant;
use tonic::Code;

use crate::{
    body::End,
    grpc_status,
    protocol::Protocol,
    rejection::{Rejection, RejectionExtension, reasons},
    time_limit::{CALLER_DEADLINE, LimitOrigin, NoEvidence},
};

/// Status that nginx logs for a client that closed the connection before the response. Never sent.
pub(crate) const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Role of this process in the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Serves the response over this protocol.
    Server(Protocol),
    /// Receives the response over this protocol.
    Client(Protocol),
}

/// Outcome of a response, as far as it is known.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a response")]
pub(crate) struct ResponseOutcome {
    role: Role,
    /// HTTP status or gRPC code.
    code: Option<u16>,
    /// Why the response of a called HTTP service is missing or truncated.
    failure: Option<&'static str>,
    cancelled: bool,
    /// Time from which a timeout is the choice of the caller.
    no_evidence: Option<NoEvidence>,
    /// Whether a time that the caller chose has passed.
    caller_timeout: bool,
    stream: bool,
    /// Whether the reader of a stream left, or its time ended.
    ended_by_reader: bool,
}

/// Outcome of an outgoing HTTP call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HttpOutcome {
    /// Status of the response, if there is one.
    pub(crate) status: Option<u16>,
    failure: Option<&'static str>,
}

impl HttpOutcome {
    /// Returns `error.type` of the semantic conventions for a client: the failure, else a status of
    /// 400 and above; empty on success.
    pub(crate) fn error_type(self) -> Cow<'static, str> {
        match (self.failure, self.status) {
            (Some(failure), _) => failure.into(),
            (None, Some(status)) if status >= 400 => status.to_string().into(),
            (None, _) => "".into(),
        }
    }
}

impl ResponseOutcome {
    /// Creates an unknown outcome. If it stays unknown, the caller has cancelled.
    pub(crate) fn pending(side: Role) -> Self {
        Self {
            role: side,
            code: None,
            failure: None,
            cancelled: true,
            no_evidence: None,
            caller_timeout: false,
            stream: false,
            ended_by_reader: false,
        }
    }

    /// Sets whether the response is a stream, whose end is the choice of its reader.
    #[cfg_attr(not(any(feature = "opentelemetry", test)), expect(dead_code, reason = "for spans"))]
    pub(crate) fn of_stream(self, stream: bool) -> Self {
        Self { stream, ..self }
    }

    /// Returns whether the response is a stream.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn is_stream(&self) -> bool {
        self.stream
    }

    /// Records the response head.
    pub(crate) fn record_head<R>(&mut self, response: &Response<R>) {
        self.no_evidence = response.extensions().get().copied();
        self.code = match (self.role, response.extensions().get::<RejectionExtension>()) {
            (Role::Client(Protocol::Http), Some(RejectionExtension(rejection))) => return self.record_rejection(rejection),
            (Role::Server(Protocol::Http) | Role::Client(Protocol::Http), _) => Some(response.status().as_u16()),
            (Role::Server(Protocol::Grpc) | Role::Client(Protocol::Grpc), _) => {
                grpc_status::from_headers(response.headers()).map(|code| code as u16)
            }
        };
        self.attribute_timeout();
    }

    /// Attributes a timeout to the caller if the caller chose the time.
    fn attribute_timeout(&mut self) {
        let timed_out = match self.role {
            Role::Server(Protocol::Http) => self.code == Some(504),
            Role::Client(Protocol::Http) => self.failure == Some(reasons::DEADLINE_EXCEEDED.slug),
            Role::Server(Protocol::Grpc) | Role::Client(Protocol::Grpc) => self.code == Some(Code::DeadlineExceeded as u16),
        };
        let mark = self.no_evidence.filter(|_| timed_out);
        self.caller_timeout |= mark.is_some_and(|mark| mark.applies(Instant::now()) == Some(LimitOrigin::Caller));
    }

    /// Records a stream as complete at its head, because it may be endless.
    pub(crate) fn record_stream(&mut self) {
        self.cancelled = false;
        self.code.get_or_insert(Code::Ok as u16);
    }

    /// Records a local rejection in place of a response.
    pub(crate) fn record_rejection(&mut self, rejection: &Rejection) {
        let reason = rejection.reason();
        self.cancelled = false;
        self.caller_timeout = rejection.is_due_to_caller();
        if self.role == Role::Client(Protocol::Http) {
            self.failure = Some(reason.slug);
        } else {
            self.code = Some(reason.grpc as u16);
        }
    }

    /// Records the end of the body.
    pub(crate) fn record_end(&mut self, end: End<'_>) {
        if self.role == Role::Client(Protocol::Http) {
            self.record_http_call_end(end);
            return self.attribute_timeout();
        }
        let grpc = self.role != Role::Server(Protocol::Http);
        let begun = self.code.is_none();
        if let (true, End::Complete(Some(trailers))) = (grpc, end) {
            self.code = grpc_status::from_headers(trailers).map(|code| code as u16).or(self.code);
        }
        // A trailers-only response is complete with its head, whether its empty body is read or
        // not.
        let has_grpc_status = grpc && self.code.is_some();
        if let (false, Some(code)) = (has_grpc_status, self.truncated_status(end)) {
            self.code = Some(code);
        }
        self.cancelled = !has_grpc_status && matches!(end, End::Dropped);
        self.attribute_timeout();
        // A stream has no time limit after its head but that of its reader.
        self.ended_by_reader = self.stream && begun && grpc && self.code == Some(Code::DeadlineExceeded as u16);
    }

    /// Records the end of an HTTP call: the head is the outcome. We may drop the rest, and only a
    /// truncated response counts as failed.
    fn record_http_call_end(&mut self, end: End<'_>) {
        self.cancelled = false;
        self.failure = match end {
            End::Failed => Some(reasons::UPSTREAM_UNAVAILABLE.slug),
            End::Late => Some(reasons::DEADLINE_EXCEEDED.slug),
            End::Complete(_) | End::Dropped => self.failure,
        };
    }

    /// Returns the status of a truncated response, unless the caller cancelled.
    fn truncated_status(&self, end: End<'_>) -> Option<u16> {
        let late = match end {
            End::Failed => false,
            End::Late => true,
            End::Complete(_) | End::Dropped => return None,
        };
        Some(match (self.role, late) {
            (Role::Server(Protocol::Http), false) => 500,
            (Role::Server(Protocol::Http), true) => 504,
            (_, true) => Code::DeadlineExceeded as u16,
            (Role::Server(Protocol::Grpc), false) => Code::Internal as u16,
            // The connection broke: the same as no response.
            (Role::Client(_), false) => Code::Unavailable as u16,
        })
    }

    /// Returns the HTTP status of our response.
    pub(crate) fn http_status(&self) -> u16 {
        if self.cancelled { CLIENT_CLOSED_REQUEST } else { self.code.unwrap_or(500) }
    }

    /// Returns the outcome of an outgoing HTTP call.
    pub(crate) fn http_outcome(&self) -> HttpOutcome {
        let failure = match self.failure {
            _ if self.cancelled && self.code.is_none() => Some("cancelled"),
            _ if self.caller_timeout => Some(CALLER_DEADLINE),
            failure => failure,
        };
        HttpOutcome { status: self.code, failure }
    }

    /// Returns whether the response timed out because the caller chose a short time.
    pub(crate) fn is_caller_timeout(&self) -> bool {
        self.caller_timeout && !self.cancelled
    }

    /// Returns whether the reader of a stream ended it: it left, or the time that it chose is over.
    #[cfg_attr(not(any(feature = "opentelemetry", test)), expect(dead_code, reason = "for spans"))]
    pub(crate) fn is_ended_by_reader(&self) -> bool {
        self.ended_by_reader || (self.stream && self.cancelled)
    }

    /// Returns the gRPC code of the response.
    pub(crate) fn grpc_code(&self) -> Code {
        match self.code {
            _ if self.cancelled => Code::Cancelled,
            Some(code) => Code::from_i32(code.into()),
            None => Code::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;

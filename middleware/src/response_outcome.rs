//! How an answer came out, by its head, its trailers or its breaking off: one rule for metrics and spans.

use std::borrow::Cow;

use http::Response;
use tonic::Code;

use crate::{
    body::End,
    grpc_status,
    rejection::{Reason, reasons},
    respond::{Protocol, RejectionExtension},
};

/// What nginx logs for a client that has gone before it was answered; no such answer is ever sent.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Whose answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ours, by HTTP or gRPC.
    Server(Protocol),
    /// That of whom we have called.
    Client(Protocol),
}

/// As far as it is known.
#[derive(Debug)]
pub(crate) struct ResponseOutcome {
    role: Role,
    /// HTTP status, or gRPC code.
    code: Option<u16>,
    /// Why an HTTP answer to us did not come, or not whole.
    failure: Option<&'static str>,
    cancelled: bool,
}

/// How an HTTP call of ours came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HttpOutcome {
    /// Of the answer, if one came.
    pub(crate) status: Option<u16>,
    failure: Option<&'static str>,
}

impl HttpOutcome {
    /// `error.type` as semantic conventions have it of a client: what failed, else a status of 400 and above; empty if all went well.
    pub(crate) fn error_type(self) -> Cow<'static, str> {
        match (self.failure, self.status) {
            (Some(failure), _) => failure.into(),
            (None, Some(status)) if status >= 400 => status.to_string().into(),
            (None, _) => "".into(),
        }
    }
}

impl ResponseOutcome {
    /// Nothing is known yet. Should it stay so, whoever asked has gone.
    pub(crate) fn pending(side: Role) -> Self {
        Self { role: side, code: None, failure: None, cancelled: true }
    }

    /// The answer has begun.
    pub(crate) fn record_head<R>(&mut self, response: &Response<R>) {
        self.code = match (self.role, response.extensions().get::<RejectionExtension>()) {
            (Role::Client(Protocol::Http), Some(RejectionExtension(rejection))) => return self.record_rejection(rejection.reason()),
            (Role::Server(Protocol::Http) | Role::Client(Protocol::Http), _) => Some(response.status().as_u16()),
            (Role::Server(Protocol::Grpc) | Role::Client(Protocol::Grpc), _) => {
                grpc_status::from_headers(response.headers()).map(|code| code as u16)
            }
        };
    }

    /// The answer has begun and is a stream: that is all there is to conclude, for it may go on for ever.
    pub(crate) fn record_stream(&mut self) {
        self.cancelled = false;
        self.code.get_or_insert(Code::Ok as u16);
    }

    /// There was no answer, for a reason of our own.
    pub(crate) fn record_rejection(&mut self, reason: &'static Reason) {
        self.cancelled = false;
        if self.role == Role::Client(Protocol::Http) {
            self.failure = Some(reason.slug);
        } else {
            self.code = Some(reason.grpc as u16);
        }
    }

    /// Its body has ended.
    pub(crate) fn record_end(&mut self, end: End<'_>) {
        if self.role == Role::Client(Protocol::Http) {
            return self.record_http_call_end(end);
        }
        let grpc = self.role != Role::Server(Protocol::Http);
        if let (true, End::Complete(Some(trailers))) = (grpc, end) {
            self.code = grpc_status::from_headers(trailers).map(|code| code as u16).or(self.code);
        }
        // A trailers-only answer is complete with its headers, whether its empty body is read or not.
        let has_grpc_status = grpc && self.code.is_some();
        if let (false, Some(code)) = (has_grpc_status, self.truncated_status(end)) {
            self.code = Some(code);
        }
        self.cancelled = !has_grpc_status && matches!(end, End::Dropped);
    }

    /// Of an answer to us the head tells the outcome: we may leave the rest, and only what breaks off is as good as none.
    fn record_http_call_end(&mut self, end: End<'_>) {
        self.cancelled = false;
        self.failure = match end {
            End::Failed => Some(reasons::UPSTREAM_UNAVAILABLE.slug),
            End::Late => Some(reasons::DEADLINE_EXCEEDED.slug),
            End::Complete(_) | End::Dropped => self.failure,
        };
    }

    /// What an answer counts as that is not whole, though nobody has gone.
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
            // What is between us broke: the same as if no answer had come.
            (Role::Client(_), false) => Code::Unavailable as u16,
        })
    }

    /// Of an HTTP answer of ours.
    pub(crate) fn http_status(&self) -> u16 {
        if self.cancelled { CLIENT_CLOSED_REQUEST } else { self.code.unwrap_or(500) }
    }

    /// Of an HTTP answer to us.
    pub(crate) fn http_outcome(&self) -> HttpOutcome {
        HttpOutcome { status: self.code, failure: if self.cancelled && self.code.is_none() { Some("cancelled") } else { self.failure } }
    }

    /// Of a gRPC answer.
    pub(crate) fn grpc_code(&self) -> Code {
        match self.code {
            _ if self.cancelled => Code::Cancelled,
            Some(code) => Code::from_i32(code.into()),
            None => Code::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;
    use tonic::Status;

    use super::*;
    use crate::rejection::Rejection;

    fn outcome_of(side: Role, head: Option<Response<()>>, end: Option<End<'_>>) -> ResponseOutcome {
        let mut conclusion = ResponseOutcome::pending(side);
        if let Some(response) = head {
            conclusion.record_head(&response);
        }
        if let Some(end) = end {
            conclusion.record_end(end);
        }
        conclusion
    }

    #[test]
    fn an_http_answer_is_its_status_unless_it_is_not_whole() {
        let ok = || Some(Response::new(()));
        for (head, end, status) in [
            (ok(), Some(End::Complete(None)), 200),
            (ok(), Some(End::Failed), 500),
            (ok(), Some(End::Late), 504),
            (ok(), Some(End::Dropped), CLIENT_CLOSED_REQUEST),
            (ok(), None, CLIENT_CLOSED_REQUEST),
            (None, None, CLIENT_CLOSED_REQUEST),
        ] {
            assert_eq!(outcome_of(Role::Server(Protocol::Http), head, end).http_status(), status, "{end:?}");
        }
    }

    #[test]
    fn a_grpc_answer_is_what_its_head_or_its_trailers_say() {
        let not_found = || Some(Status::not_found("").into_http());
        let begun = || Some(Response::new(()));
        let trailers: HeaderMap = Status::aborted("").into_http::<()>().headers().clone();
        for (head, end, code) in [
            (not_found(), Some(End::Complete(None)), Code::NotFound),
            (not_found(), Some(End::Dropped), Code::NotFound),
            (not_found(), Some(End::Failed), Code::NotFound),
            (begun(), Some(End::Complete(Some(&trailers))), Code::Aborted),
            (begun(), Some(End::Complete(None)), Code::Unknown),
            (begun(), Some(End::Failed), Code::Internal),
            (begun(), Some(End::Late), Code::DeadlineExceeded),
            (begun(), Some(End::Dropped), Code::Cancelled),
            (None, None, Code::Cancelled),
        ] {
            assert_eq!(outcome_of(Role::Server(Protocol::Grpc), head, end).grpc_code(), code, "{end:?}");
        }
    }

    #[test]
    fn an_answer_to_us_that_breaks_off_is_as_good_as_none() {
        let begun = || Some(Response::new(()));
        let side = Role::Client(Protocol::Grpc);
        assert_eq!(outcome_of(side, begun(), Some(End::Failed)).grpc_code(), Code::Unavailable);
        assert_eq!(outcome_of(side, begun(), Some(End::Dropped)).grpc_code(), Code::Cancelled);
        let mut refused = outcome_of(side, None, None);
        refused.record_rejection(&reasons::RATE_LIMITED);
        assert_eq!(refused.grpc_code(), Code::ResourceExhausted);
    }

    #[test]
    fn an_http_answer_to_us_is_told_by_its_head_unless_it_breaks_off() {
        let answer = |status: u16| {
            let mut response = Response::new(());
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            Some(response)
        };
        let refused = || {
            let mut response = answer(503);
            let rejection = Rejection::new(&reasons::OVERLOADED, "no place");
            response.as_mut().unwrap().extensions_mut().insert(RejectionExtension(Arc::new(rejection)));
            response
        };
        for (head, end, status, error) in [
            (answer(200), Some(End::Complete(None)), Some(200), ""),
            (answer(200), Some(End::Dropped), Some(200), ""),
            (answer(302), None, Some(302), ""),
            (answer(404), Some(End::Dropped), Some(404), "404"),
            (answer(503), Some(End::Complete(None)), Some(503), "503"),
            (answer(200), Some(End::Failed), Some(200), "upstream_unavailable"),
            (answer(200), Some(End::Late), Some(200), "deadline_exceeded"),
            (refused(), Some(End::Complete(None)), None, "overloaded"),
            (refused(), Some(End::Dropped), None, "overloaded"),
            (None, None, None, "cancelled"),
        ] {
            let outcome = outcome_of(Role::Client(Protocol::Http), head, end).http_outcome();
            assert_eq!((outcome.status, &*outcome.error_type()), (status, error), "{end:?}");
        }
    }
}

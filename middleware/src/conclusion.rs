//! How an answer came out, by its head, its trailers or its breaking off: one rule for metrics and spans.

use http::Response;
use tonic::Code;

use crate::{body::End, grpc_status, respond::Protocol};

/// What nginx logs for a client that has gone before it was answered; no such answer is ever sent.
const GONE: u16 = 499;

/// Whose answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Ours, by HTTP or gRPC.
    Server(Protocol),
    /// That of the gRPC service that we have called.
    Client,
}

/// As far as it is known.
#[derive(Debug)]
pub(crate) struct Conclusion {
    side: Side,
    /// HTTP status, or gRPC code.
    code: Option<u16>,
    gone: bool,
}

impl Conclusion {
    /// Nothing is known yet. Should it stay so, whoever asked has gone.
    pub(crate) fn open(side: Side) -> Self {
        Self { side, code: None, gone: true }
    }

    /// The answer has begun.
    pub(crate) fn head<R>(&mut self, response: &Response<R>) {
        self.code = match self.side {
            Side::Server(Protocol::Http) => Some(response.status().as_u16()),
            Side::Server(Protocol::Grpc) | Side::Client => grpc_status::code_in(response.headers()).map(|code| code as u16),
        };
    }

    /// The answer has begun and is a stream: that is all there is to conclude, for it may go on for ever.
    pub(crate) fn stream(&mut self) {
        self.gone = false;
        self.code.get_or_insert(Code::Ok as u16);
    }

    /// There was no answer, for a reason of our own.
    pub(crate) fn refused(&mut self, code: Code) {
        (self.code, self.gone) = (Some(code as u16), false);
    }

    /// Its body has ended.
    pub(crate) fn end(&mut self, end: End<'_>) {
        let grpc = self.side != Side::Server(Protocol::Http);
        if let (true, End::Complete(Some(trailers))) = (grpc, end) {
            self.code = grpc_status::code_in(trailers).map(|code| code as u16).or(self.code);
        }
        // A trailers-only answer is complete with its headers, whether its empty body is read or not.
        let told = grpc && self.code.is_some();
        if let (false, Some(code)) = (told, self.broken_off(end)) {
            self.code = Some(code);
        }
        self.gone = !told && matches!(end, End::Dropped);
    }

    /// What an answer counts as that is not whole, though nobody has gone.
    fn broken_off(&self, end: End<'_>) -> Option<u16> {
        let late = match end {
            End::Failed => false,
            End::Late => true,
            End::Complete(_) | End::Dropped => return None,
        };
        Some(match (self.side, late) {
            (Side::Server(Protocol::Http), false) => 500,
            (Side::Server(Protocol::Http), true) => 504,
            (_, true) => Code::DeadlineExceeded as u16,
            (Side::Server(Protocol::Grpc), false) => Code::Internal as u16,
            // What is between us broke: the same as if no answer had come.
            (Side::Client, false) => Code::Unavailable as u16,
        })
    }

    /// Of an HTTP answer.
    pub(crate) fn status(&self) -> u16 {
        if self.gone { GONE } else { self.code.unwrap_or(500) }
    }

    /// Of a gRPC answer.
    pub(crate) fn code(&self) -> Code {
        match self.code {
            _ if self.gone => Code::Cancelled,
            Some(code) => Code::from_i32(code.into()),
            None => Code::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tonic::Status;

    use super::*;

    fn concluded(side: Side, head: Option<Response<()>>, end: Option<End<'_>>) -> Conclusion {
        let mut conclusion = Conclusion::open(side);
        if let Some(response) = head {
            conclusion.head(&response);
        }
        if let Some(end) = end {
            conclusion.end(end);
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
            (ok(), Some(End::Dropped), GONE),
            (ok(), None, GONE),
            (None, None, GONE),
        ] {
            assert_eq!(concluded(Side::Server(Protocol::Http), head, end).status(), status, "{end:?}");
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
            assert_eq!(concluded(Side::Server(Protocol::Grpc), head, end).code(), code, "{end:?}");
        }
    }

    #[test]
    fn an_answer_to_us_that_breaks_off_is_as_good_as_none() {
        let begun = || Some(Response::new(()));
        assert_eq!(concluded(Side::Client, begun(), Some(End::Failed)).code(), Code::Unavailable);
        assert_eq!(concluded(Side::Client, begun(), Some(End::Dropped)).code(), Code::Cancelled);
        let mut refused = concluded(Side::Client, None, None);
        refused.refused(Code::ResourceExhausted);
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
}

//! What the log says of a refusal: one line for each request that is refused or fails, written where it is answered, with its cause.
//!
//! | what happened | level |
//! |---|---|
//! | the server failed, and here is where the cause is known: a store, a connection, the clock, a panic, a bug | `warn` |
//! | the server failed for want of room, an open circuit, or because a service behind it did, which has told its own line | `debug` |
//! | the caller's fault: 4xx | `debug` |
//!
//! What comes in numbers when there is least time for it is counted and in the spans, not at `info` in the log. A refusal of our own
//! client is no line: it goes on inside the process, with its cause, to whoever answers for it. Neither is a caller that went away.

use std::{error::Error as StdError, fmt};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{DOMAIN, Rejection, reasons};
use crate::grpc_status;

impl Rejection {
    /// Writes the line.
    pub(crate) fn log(&self) {
        let (reason, detail) = (self.reason().slug, self.detail());
        let cause = Causes(self.source());
        if *self.reason() == reasons::NOT_READY {
            tracing::debug!(detail, "not ready");
        } else if self.should_warn() {
            tracing::warn!(reason, detail, %cause, "request refused");
        } else {
            tracing::debug!(reason, detail, %cause, "request refused");
        }
    }

    /// Whether the server failed, and nobody else tells why.
    fn should_warn(&self) -> bool {
        self.reason().http.is_server_error() && (*self.reason() == reasons::INTERNAL || self.has_cause())
    }

    fn has_cause(&self) -> bool {
        let Some(source) = self.source() else { return false };
        let Some(status) = source.downcast_ref::<Status>() else { return true };
        match source_rejection(status) {
            Some(ours) => ours.has_cause(),
            // It came from another service. One like ours has told its cause.
            None => status.get_details_error_info().is_none_or(|info| info.domain != DOMAIN),
        }
    }
}

/// As [`Rejection::log`] for the status that a handler has answered with; that of a success is nothing to tell of.
pub(crate) fn log_status(status: &Status) {
    if let Some(rejection) = source_rejection(status) {
        return rejection.log();
    }
    let (reason, detail) = (grpc_status::name(status.code()), status.message());
    match status.code() {
        Code::Ok => {}
        Code::Internal | Code::Unknown | Code::DataLoss => {
            let cause = Causes(status.source());
            tracing::warn!(reason, detail, %cause, "request refused");
        }
        _ => tracing::debug!(reason, detail, "request refused"),
    }
}

/// The refusal that became this status in this process.
fn source_rejection(status: &Status) -> Option<&Rejection> {
    status.source()?.downcast_ref()
}

/// An error with all its causes, for one line of the log. A status that stands for a refusal of our own is told by that.
pub fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl fmt::Display + 'a {
    Causes(Some(error))
}

/// An error with all its causes; or none.
struct Causes<'a>(Option<&'a (dyn StdError + 'static)>);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_none() {
            return f.write_str("none");
        }
        let mut separator = "";
        for error in std::iter::successors(self.0, |error| (*error).source()) {
            match error.downcast_ref::<Status>() {
                Some(status) if source_rejection(status).is_some() => continue,
                // Its own words would repeat its source.
                Some(status) => write!(f, "{separator}{}: {}", grpc_status::name(status.code()), status.message())?,
                None => write!(f, "{separator}{error}")?,
            }
            separator = ": ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whoever_knows_the_cause_tells_it_aloud() {
        let broken = || Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the store does not answer").with_source("connection refused");
        let open = || Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "circuit open");
        let over_the_wire = |rejection: Rejection| Status::from_header_map(Status::from(rejection).into_http::<()>().headers()).unwrap();
        for (rejection, warned) in [
            (broken(), true),
            (open(), false),
            (Rejection::new(&reasons::NOT_FOUND, "no such thing").with_source("a row"), false),
            (Rejection::from_upstream_status(broken().into()), true),
            (Rejection::from_upstream_status(open().into()), false),
            (Rejection::from_upstream_status(over_the_wire(broken())), false),
            (Rejection::from_upstream_status(Status::unavailable("a proxy's words")), true),
            (Rejection::from_upstream_status(over_the_wire(Rejection::internal("a bug"))), true),
        ] {
            assert_eq!(rejection.should_warn(), warned, "{rejection:?}");
        }
    }

    #[test]
    fn the_cause_of_a_call_that_failed_is_told_to_its_end_and_once() {
        let failed = Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "it cannot be reached").with_source("connection refused");
        let ours = Rejection::from_upstream_status(failed.into());
        assert_eq!(Causes(ours.source()).to_string(), "upstream_unavailable: it cannot be reached: connection refused");
        let theirs = Rejection::from_upstream_status(Status::not_found("there is no such order"));
        assert_eq!(Causes(theirs.source()).to_string(), "NOT_FOUND: there is no such order");
    }
}

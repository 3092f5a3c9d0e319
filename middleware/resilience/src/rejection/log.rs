//! Logging of rejections: one record per rejected or failed request, with its cause, written by the
//! response layer.
//!
//! | event | level |
//! |---|---|
//! | server error whose cause is known here: store, connection, clock, panic, bug | `warn`, at most 50 a second per reason |
//! | any rejection of an HTTP request with a record of its own (`request_log`) | `debug` |
//! | server error by overload, open circuit, or a dependency that logged the cause | `debug` |
//! | client error: 4xx | `debug` |
//!
//! Events that are frequent under overload are counted and traced instead of logged at `info`.
//! Rejections by the process's own client stack are not logged here: they propagate with their
//! cause to the response layer. Requests cancelled by the client are not logged either.

use std::{error::Error as StdError, fmt, sync::LazyLock};

use tonic::{Code, Status};

use super::{Rejection, error_details, reasons};
use crate::{grpc_status, log_budget::LogBudget};

static BUDGET: LazyLock<LogBudget> = LazyLock::new(LogBudget::default);

impl Rejection {
    /// Logs the rejection.
    pub(crate) fn log(&self) {
        let (reason, detail) = (self.reason().slug, self.detail());
        if *self.reason() == reasons::NOT_READY {
            tracing::debug!(detail, "not ready");
        } else if self.should_warn() {
            if let Some(left_out) = BUDGET.admit(reason) {
                let cause = Causes(self.source());
                tracing::warn!(reason, detail, %cause, left_out = (left_out > 0).then_some(left_out), "request rejected");
            }
        } else {
            self.log_detail();
        }
    }

    /// Logs the rejection of a request that the request log records: only at `debug`.
    pub(crate) fn log_detail(&self) {
        let (reason, detail) = (self.reason().slug, self.detail());
        tracing::debug!(reason, detail, cause = %Causes(self.source()), "request rejected");
    }

    /// Returns the chain of causes, if there is one.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn cause_text(&self) -> Option<String> {
        self.source().map(|source| Causes(Some(source)).to_string())
    }

    /// Returns whether a called service responded with this rejection.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn is_by_upstream(&self) -> bool {
        let status = self.source().and_then(|source| source.downcast_ref::<Status>());
        status.is_some_and(|status| source_rejection(status).is_none_or(Self::is_by_upstream))
    }

    /// Returns whether this is a server error whose cause no other service logs.
    fn should_warn(&self) -> bool {
        // A time that the caller chose is no failure.
        self.reason().http.is_server_error() && !self.is_due_to_caller() && (*self.reason() == reasons::INTERNAL || self.has_cause())
    }

    fn has_cause(&self) -> bool {
        let Some(source) = self.source() else { return false };
        let Some(status) = source.downcast_ref::<Status>() else { return true };
        match source_rejection(status) {
            Some(ours) => ours.has_cause(),
            // Remote status. A service with this stack has logged the cause itself.
            None => !error_details::is_own(status),
        }
    }
}

/// As [`Rejection::log`] for a status returned by a handler. Successful statuses are not logged.
pub(crate) fn log_status(status: &Status) {
    if let Some(rejection) = source_rejection(status) {
        return rejection.log();
    }
    let (reason, detail) = (grpc_status::name(status.code()), status.message());
    match status.code() {
        Code::Ok => {}
        Code::Internal | Code::Unknown | Code::DataLoss => {
            let cause = Causes(status.source());
            if let Some(left_out) = BUDGET.admit(reason) {
                tracing::warn!(reason, detail, %cause, left_out = (left_out > 0).then_some(left_out), "request rejected");
            }
        }
        _ => tracing::debug!(reason, detail, "request rejected"),
    }
}

/// Returns the rejection of this process that the status was built from.
pub(crate) fn source_rejection(status: &Status) -> Option<&Rejection> {
    status.source()?.downcast_ref()
}

/// Formats an error with its chain of causes for the log. A status built from a rejection of this
/// process is shown as that rejection.
pub fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl fmt::Display + 'a {
    Causes(Some(error))
}

/// Returns the error and its causes, outermost first.
pub fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Display of an error and its causes, or of `none`.
struct Causes<'a>(Option<&'a (dyn StdError + 'static)>);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_none() {
            return f.write_str("none");
        }
        let mut separator = "";
        for error in self.0.into_iter().flat_map(chain) {
            match error.downcast_ref::<Status>() {
                Some(status) if source_rejection(status).is_some() => continue,
                // The `Display` of a status would repeat its source.
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

    /// Rejection caused by the status of an upstream.
    fn upstream(status: Status) -> Rejection {
        Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "an upstream failed").with_source(status)
    }

    #[test]
    fn log_warns_only_where_cause_is_known() {
        let broken = || Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "the store is unavailable").with_source("connection refused");
        let open = || Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "circuit open");
        let over_the_wire = |rejection: Rejection| Status::from_header_map(Status::from(rejection).into_http::<()>().headers()).unwrap();
        for (rejection, warned) in [
            (broken(), true),
            (open(), false),
            (Rejection::new(&reasons::NOT_FOUND, "no such thing").with_source("a row"), false),
            (upstream(broken().into()), true),
            (upstream(open().into()), false),
            (upstream(over_the_wire(broken())), false),
            (upstream(Status::unavailable("text of a proxy")), true),
            (Rejection::internal(over_the_wire(Rejection::internal("a bug"))), true),
        ] {
            assert_eq!(rejection.should_warn(), warned, "{rejection:?}");
        }
    }

    #[test]
    fn causes_show_whole_chain_once() {
        let failed = Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "target unreachable").with_source("connection refused");
        let ours = upstream(failed.into());
        assert_eq!(Causes(ours.source()).to_string(), "upstream_unavailable: target unreachable: connection refused");
        let theirs = upstream(Status::not_found("no such order"));
        assert_eq!(Causes(theirs.source()).to_string(), "NOT_FOUND: no such order");
    }
}

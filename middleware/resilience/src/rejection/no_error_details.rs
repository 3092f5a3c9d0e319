//! gRPC statuses without `google.rpc.ErrorDetails`: the code and the message alone.

use std::time::Duration;

use tonic::Status;

use super::{Reason, Rejection, Violation};

/// Details of the status of a called service: none.
pub(super) struct ReadDetails {
    pub(super) reason: Option<&'static Reason>,
    pub(super) violations: Vec<Violation>,
    pub(super) retry_delay: Option<Duration>,
}

/// Reads no details.
pub(super) fn read(_status: &Status) -> ReadDetails {
    ReadDetails { reason: None, violations: Vec::new(), retry_delay: None }
}

/// Returns `false`: without details, every called service is foreign.
pub(super) fn is_own(_status: &Status) -> bool {
    false
}

/// Builds the status of a rejection, without metadata.
pub(super) fn status(rejection: &Rejection) -> Status {
    Status::new(rejection.reason().grpc, rejection.detail())
}

//! Deadline propagation: read from the request, enforced until the last byte of the response,
//! passed on less the time already spent.
//!
//! Server: [`DeadlineLayer`] turns `grpc-timeout` (gRPC) or `x-request-timeout` (HTTP) into
//! [`Context::deadline`] and enforces it on the handler and its body. Client:
//! [`TotalDeadlineLayer`] takes the remaining time from the context and rejects a call that cannot
//! succeed; [`AttemptTimeoutLayer`] enforces it on each attempt and sends it to a gRPC server as
//! `grpc-timeout`. Requests carry a duration, never a point in time, because the clocks of two
//! machines differ.
//!
//! A deadline knows who chose it ([`TimeLimit`]). What the caller chose says nothing about the
//! service: its expiry is neutral in breakers, limits, load estimates and retry tokens, and has the
//! `error.type` `caller_deadline`. An internal service says by [`DEADLINE_ORIGIN_HEADER`] that its
//! operator chose the timeout; the header counts only with an internal token.
//!
//! tonic implements this only in part: it answers CANCELLED, covers only the response head and
//! passes nothing on.
//!
//! [`Context::deadline`]: crate::context::Context::deadline

mod attempt;
mod call;
mod expired;
mod grpc_timeout;
mod origin;
mod server;
mod timeout_body;

use std::time::Duration;

use crate::{
    rejection::{Rejection, reasons},
    time_limit::TimeLimit,
};

pub use crate::body::Elapsed;
pub use attempt::{AttemptTimeout, AttemptTimeoutLayer};
pub use call::{TotalDeadline, TotalDeadlineLayer};
pub use expired::RejectExpiredLayer;
pub use origin::{DEADLINE_ORIGIN_HEADER, announce_origin, apply_inbound_origin};
pub use server::{Deadline, DeadlineLayer, REQUEST_TIMEOUT_HEADER};
pub use timeout_body::{ResponseFuture, TimeoutBody};

/// Returns the rejection when the time ran out after `limit`.
pub fn elapsed(limit: Duration) -> Rejection {
    Rejection::new(&reasons::DEADLINE_EXCEEDED, "the deadline passed before the request was completed").with_source(Elapsed(limit))
}

/// Returns the rejection when no time was left to begin.
pub(crate) fn expired() -> Rejection {
    Rejection::new(&reasons::DEADLINE_EXCEEDED, "the deadline passed before the request was started")
}

/// Deadline of the incoming request, without the limits of the call; in the extensions of every
/// attempt. A stream ends then, and [`CallDeadline`] applies to its response head only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamEnd(pub(crate) TimeLimit);

/// Deadline of an outgoing call; in the extensions of every attempt. Inside [`AttemptTimeout`] it
/// is the deadline of that attempt.
#[derive(Debug, Clone, Copy)]
pub struct CallDeadline(pub TimeLimit);

//! Deadlines on both sides of a hop: read on arrival, enforced until the last byte, passed on less the time already spent.
//!
//! Server: [`DeadlineLayer`] turns `grpc-timeout` (gRPC) or `x-request-timeout` (HTTP) into [`Context::deadline`]
//! and holds the handler and its body to it. Client: [`TotalDeadlineLayer`] takes what the context has left and refuses a call
//! that has no chance; [`AttemptTimeoutLayer`] holds each attempt to it and tells a gRPC server by `grpc-timeout`.
//! A duration travels, never a point in time: clocks of two machines differ.
//!
//! tonic has all of this in part only: it answers CANCELLED, covers the response's head alone and passes nothing on.
//!
//! [`Context::deadline`]: crate::context::Context::deadline

mod attempt;
mod call;
mod grpc_timeout;
mod server;
mod timeout_body;

use std::time::Duration;

use tokio::time::Instant;

use crate::rejection::{Rejection, reasons};

pub use attempt::{AttemptTimeout, AttemptTimeoutLayer};
pub use call::{TotalDeadline, TotalDeadlineLayer};
pub use server::{Deadline, DeadlineLayer, REQUEST_TIMEOUT_HEADER};
pub use timeout_body::{ResponseFuture, TimeoutBody};

/// The source of a refusal whose cause was the clock: the other side was asked and did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct Elapsed(pub Duration);

/// The refusal when time ran out after `limit`.
pub(crate) fn elapsed(limit: Duration) -> Rejection {
    Rejection::new(&reasons::DEADLINE_EXCEEDED, "the deadline passed before the work was done").with_source(Elapsed(limit))
}

/// The refusal when no time was left to begin with.
pub(crate) fn expired() -> Rejection {
    Rejection::new(&reasons::DEADLINE_EXCEEDED, "the deadline had passed before the work began")
}

/// When an outgoing stream must end, because whoever asks for it said so; in the extensions of every attempt. [`CallDeadline`] then is about
/// its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamEnd(pub(crate) Instant);

/// When an outgoing call must have its answer; in the extensions of every attempt. Inside [`AttemptTimeout`]: when that attempt must.
#[derive(Debug, Clone, Copy)]
pub struct CallDeadline(pub Instant);

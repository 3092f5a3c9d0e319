//! Transport error: the source of a rejection whose server sent no response.

use std::error::Error as StdError;

use super::{Rejection, reasons};

/// Source of a rejection after a transport error: the server sent no response.
#[derive(Debug, thiserror::Error)]
#[error("transport error")]
pub struct TransportError {
    /// Whether the server has certainly not processed the request, so that even a non-idempotent
    /// one can be retried.
    pub never_sent: bool,
    /// Whether no connection was attempted because of connect backoff: repeats the error of the
    /// last attempt.
    pub connect_backoff: bool,
    source: Box<dyn StdError + Send + Sync>,
}

impl TransportError {
    /// Wraps the error of a client library.
    pub fn new(source: impl Into<Box<dyn StdError + Send + Sync>>, never_sent: bool, connect_backoff: bool) -> Self {
        Self { never_sent, connect_backoff, source: source.into() }
    }

    /// Converts the error to a rejection of the call.
    pub fn into_rejection(self) -> Rejection {
        Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "cannot reach an upstream service").with_source(self)
    }
}

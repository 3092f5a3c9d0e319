//! Verdict about a trace, as sent to the endpoints that it reached.

use std::fmt;

use http::HeaderName;
use opentelemetry::{SpanId, TraceId};

/// Request header with verdicts, separated by commas. Read on infrastructure methods of gRPC
/// servers only: they are never shed, and the header costs other requests nothing.
pub const KEPT_TRACES_HEADER: HeaderName = HeaderName::from_static("x-kept-traces");
/// Maximum number of verdicts in a header. Further ones are ignored.
pub const MAX_VERDICTS: usize = 64;

/// Trace to be exported, and the span that called the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Id of the trace.
    pub trace: TraceId,
    /// Id of the calling span.
    pub caller: SpanId,
}

/// Endpoint that receives verdicts. Must not block.
pub trait SendVerdict: fmt::Debug + Send + Sync {
    /// Sends a verdict, or counts it as lost.
    fn send(&self, verdict: Verdict);
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.trace, self.caller)
    }
}

impl Verdict {
    /// Reads the verdicts of a header. Leaves out malformed ones.
    pub(in crate::trace) fn read(header: &str) -> impl Iterator<Item = Self> {
        header.split(',').take(MAX_VERDICTS).filter_map(|verdict| {
            let (trace, caller) = verdict.split_once('-')?;
            Some(Self { trace: TraceId::from_hex(trace).ok()?, caller: SpanId::from_hex(caller).ok()? })
        })
    }
}

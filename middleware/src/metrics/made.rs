//! The series of HTTP calls that we make, and of the attempts at them.

use std::sync::Arc;

use metrics::Histogram;

use super::Known;
use crate::conclusion::HttpOutcome;

/// The calls of one HTTP method to one server, or the attempts at them. A server may answer with any status, of which there are 900.
pub(crate) struct MadeSeries {
    verb: &'static str,
    of: Of,
    durations: Known<HttpOutcome, Histogram>,
}

enum Of {
    Calls { address: Arc<str>, port: u16 },
    Attempts { target: &'static str, kind: &'static str },
}

impl MadeSeries {
    pub(super) fn calls(verb: &'static str, address: Arc<str>, port: u16) -> Self {
        Self { verb, of: Of::Calls { address, port }, durations: Known::default() }
    }

    pub(crate) fn duration(&self, outcome: HttpOutcome) -> Arc<Histogram> {
        self.durations.get(&outcome, || (outcome, self.look_up(outcome)))
    }

    fn look_up(&self, outcome: HttpOutcome) -> Histogram {
        let status = outcome.status.map(|status| status.to_string()).unwrap_or_default();
        let error = outcome.error_type();
        match &self.of {
            Of::Calls { address, port } => metrics::histogram!("http.client.request.duration", "http.request.method" => self.verb,
                "server.address" => address.clone(), "server.port" => port.to_string(), "http.response.status_code" => status,
                "error.type" => error),
            Of::Attempts { target, kind } => metrics::histogram!("palisade.http.client.attempt.duration",
                "http.request.method" => self.verb, "target" => *target, "attempt.type" => *kind,
                "http.response.status_code" => status, "error.type" => error),
        }
    }
}

/// The attempts at one target.
#[derive(Debug)]
pub(crate) struct AttemptsMade {
    target: &'static str,
    known: Known<(&'static str, &'static str), MadeSeries>,
}

impl AttemptsMade {
    pub(crate) fn new(target: &'static str) -> Self {
        Self { target, known: Known::default() }
    }

    /// The first attempt of a call, or a further one.
    pub(crate) fn of(&self, verb: &'static str, first: bool) -> Arc<MadeSeries> {
        let kind = if first { "original" } else { "retry" };
        let of = Of::Attempts { target: self.target, kind };
        self.known.get(&(verb, kind), || ((verb, kind), MadeSeries { verb, of, durations: Known::default() }))
    }
}

impl std::fmt::Debug for MadeSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeSeries").field("verb", &self.verb).finish_non_exhaustive()
    }
}

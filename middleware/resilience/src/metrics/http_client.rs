//! Series of HTTP client calls and their attempts.

use std::sync::Arc;

use metrics::Histogram;

use super::HandleCache;
use crate::response_outcome::HttpOutcome;

/// Calls of one HTTP method to one server, or attempts. Series per status are created on demand,
/// because a server may return any of 900 statuses.
pub(crate) struct HttpClientSeries {
    verb: &'static str,
    series_kind: SeriesKind,
    durations: HandleCache<HttpOutcome, Histogram>,
}

enum SeriesKind {
    Calls { address: Arc<str>, port: u16 },
    Attempts { target: &'static str, kind: &'static str },
}

impl HttpClientSeries {
    pub(super) fn for_calls(verb: &'static str, address: Arc<str>, port: u16) -> Self {
        Self { verb, series_kind: SeriesKind::Calls { address, port }, durations: HandleCache::default() }
    }

    pub(crate) fn duration(&self, outcome: HttpOutcome) -> Arc<Histogram> {
        self.durations.get(&outcome, || (outcome, self.register_histogram(outcome)))
    }

    fn register_histogram(&self, outcome: HttpOutcome) -> Histogram {
        let status = outcome.status.map(|status| status.to_string()).unwrap_or_default();
        let error = outcome.error_type();
        match &self.series_kind {
            SeriesKind::Calls { address, port } => crate::histogram!("http.client.request.duration", "http.request.method" => self.verb,
                "server.address" => address.clone(), "server.port" => port.to_string(), "http.response.status_code" => status,
                "error.type" => error),
            SeriesKind::Attempts { target, kind } => crate::histogram!("palisade.http.client.attempt.duration",
                "http.request.method" => self.verb, "target" => *target, "attempt.type" => *kind,
                "http.response.status_code" => status, "error.type" => error),
        }
    }
}

/// Attempts at one target.
#[derive(Debug)]
pub(crate) struct HttpAttemptSeries {
    target: &'static str,
    cache: HandleCache<(&'static str, &'static str), HttpClientSeries>,
}

impl HttpAttemptSeries {
    pub(crate) fn new(target: &'static str) -> Self {
        Self { target, cache: HandleCache::default() }
    }

    /// Returns the series of first attempts or of retries.
    pub(crate) fn series_for(&self, verb: &'static str, first: bool) -> Arc<HttpClientSeries> {
        let kind = if first { "original" } else { "retry" };
        let series_kind = SeriesKind::Attempts { target: self.target, kind };
        self.cache.get(&(verb, kind), || ((verb, kind), HttpClientSeries { verb, series_kind, durations: HandleCache::default() }))
    }
}

impl std::fmt::Debug for HttpClientSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClientSeries").field("verb", &self.verb).finish_non_exhaustive()
    }
}

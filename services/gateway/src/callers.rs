//! Rate, errors and durations by caller: the issuer of the token, under its name in the
//! configuration.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use metrics::Histogram;
use palisade_middleware::{auth, context::Context};
use tokio::time::Instant;

use crate::metrics::{CALL_OUTCOMES, CallOutcome, OTHER_CALLER, caller_requests};

/// Durations of one caller's requests, in the order of [`CALL_OUTCOMES`].
type Durations = [Histogram; CALL_OUTCOMES.len()];

/// Known callers. A token cannot add one: its issuer must be in the configuration.
#[derive(Debug, Clone)]
pub struct Callers(Arc<Known>);

#[derive(Debug)]
struct Known {
    /// By the `iss` of their tokens.
    by_issuer: BTreeMap<String, Durations>,
    other: Durations,
}

impl Callers {
    /// Registers the series of every configured issuer.
    pub fn new(config: &auth::Config) -> Self {
        let issuers = config.issuers.iter();
        let by_issuer = issuers.map(|(name, issuer)| (issuer.issuer.clone().unwrap_or_else(|| name.clone()), durations(name))).collect();
        Self(Arc::new(Known { by_issuer, other: durations(OTHER_CALLER) }))
    }

    fn record(&self, issuer: &str, outcome: CallOutcome, started: Instant) {
        let durations = self.0.by_issuer.get(issuer).unwrap_or(&self.0.other);
        let pairs = CALL_OUTCOMES.iter().zip(durations);
        pairs.filter(|(known, _)| **known == outcome).for_each(|(_, duration)| duration.record(started.elapsed()));
    }
}

fn durations(caller: &str) -> Durations {
    CALL_OUTCOMES.map(|outcome| caller_requests(caller.to_owned(), outcome))
}

/// Records a request with a verified token. Requests rejected before the handler, by a rate limit
/// for example, are in the metrics of the whole gateway only.
pub(crate) async fn record(State(callers): State<Callers>, request: Request, next: Next) -> Response {
    let principal = Context::of(&request).and_then(|context| context.principal.clone());
    let started = Instant::now();
    let response = next.run(request).await;
    if let Some(principal) = principal {
        callers.record(&principal.issuer, response.status().into(), started);
    }
    response
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use palisade_tests::metrics_recorder::MetricsRecorder;

    use super::*;

    #[test]
    fn callers_are_names_of_the_configuration() {
        let recorder = MetricsRecorder::new();
        let _recording = recorder.install();
        crate::metrics::register();
        let partner = auth::IssuerConfig { issuer: Some("https://id.example".to_owned()), ..auth::IssuerConfig::default() };
        let issuers = [("partner".to_owned(), partner), ("web".to_owned(), auth::IssuerConfig::default())];
        let callers = Callers::new(&auth::Config { issuers: issuers.into(), ..auth::Config::default() });
        for (issuer, status) in [
            ("https://id.example", StatusCode::OK),
            ("web", StatusCode::NOT_FOUND),
            ("web", StatusCode::SERVICE_UNAVAILABLE),
            ("https://unknown.example", StatusCode::NOT_MODIFIED),
        ] {
            callers.record(issuer, status.into(), Instant::now());
        }
        let count =
            |caller, outcome| recorder.value("palisade_caller_request_duration_seconds_count", &[("caller", caller), ("outcome", outcome)]);
        for (caller, outcome) in [("partner", "success"), ("web", "client_error"), ("web", "server_error"), ("other", "success")] {
            assert_eq!(count(caller, outcome).as_deref(), Some("1"), "{caller} {outcome}");
        }
        assert!(!recorder.series().keys().any(|series| series.contains("example")), "an issuer became a label");
    }
}

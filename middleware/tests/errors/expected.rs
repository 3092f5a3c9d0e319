//! Expected rejection, compared with the actual response.

use std::time::Duration;

use http::header;
use palisade_middleware::{
    rejection::{FAILURE_ORIGIN_HEADER, PUSHBACK_HEADER, Reason, Violation, reasons},
    respond::PROBLEM_JSON,
};
use serde_json::{Value, json};
use tonic::Status;
use tonic_types::StatusExt;

/// Expected retry information.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ExpectedRetry {
    Silent,
    Never,
    Exactly(Duration),
    /// More than zero, at most this.
    AtMost(Duration),
}

/// Expected rejection of a client.
#[derive(Debug, Clone)]
pub(crate) struct ExpectedRejection {
    pub(crate) reason: &'static Reason,
    pub(crate) retry: ExpectedRetry,
    pub(crate) violations: Vec<Violation>,
    /// Whether the metadata of the full rejection is present.
    pub(crate) has_metadata: bool,
    /// Exact headers of the HTTP response.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// Service that failed, if not the responding one.
    pub(crate) origin: Option<&'static str>,
}

impl ExpectedRejection {
    pub(crate) fn of(reason: &'static Reason, wait: ExpectedRetry) -> Self {
        let origin = (*reason == reasons::UPSTREAM_UNAVAILABLE).then_some("dependency");
        Self { reason, retry: wait, violations: Vec::new(), has_metadata: false, headers: &[], origin }
    }

    pub(crate) fn with_headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    pub(crate) fn with_origin(self, service: &'static str) -> Self {
        Self { origin: Some(service), ..self }
    }

    /// Compares status, problem document and headers.
    pub(crate) async fn assert_http(&self, case: &str, response: reqwest::Response) {
        let reason = self.reason;
        let (status, headers, path) = (response.status(), response.headers().clone(), response.url().path().to_owned());
        let problem: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_else(|error| panic!("{case}: {error}"));
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(status, reason.http, "{case}: {problem}");
        assert_eq!(headers[header::CONTENT_TYPE], PROBLEM_JSON, "{case}");
        assert_eq!(problem["type"], format!("/problems/{}", reason.slug), "{case}");
        assert_eq!((&problem["title"], &problem["code"]), (&json!(reason.title), &json!(reason.slug)), "{case}");
        assert_eq!((&problem["status"], &problem["instance"]), (&json!(reason.http.as_u16()), &json!(path)), "{case}");
        assert_eq!(problem["requestId"].as_str(), header("x-request-id"), "{case}");
        assert!(header("x-trace-id").is_some(), "{case}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && !problem.to_string().contains("hunter2"), "{case}: {problem}");
        let violations =
            self.violations.iter().map(|violation| json!({"field": violation.field, "code": violation.code, "message": violation.message}));
        let violations: Vec<_> = violations.collect();
        assert_eq!(problem.get("errors"), (!violations.is_empty()).then(|| json!(violations)).as_ref(), "{case}");
        assert_eq!(problem.get("orderId"), self.has_metadata.then(|| json!("7")).as_ref(), "{case}");
        assert_eq!(problem.get("allowed"), self.has_metadata.then(|| json!(["A", "B"])).as_ref(), "{case}");

        let seconds = header("retry-after").map(|text| text.parse::<u64>().unwrap());
        match self.retry {
            // Every 503 carries a `Retry-After`.
            ExpectedRetry::Silent | ExpectedRetry::Never => assert_eq!(seconds, (status == 503).then_some(1), "{case}"),
            ExpectedRetry::Exactly(wait) => assert_eq!(seconds, Some(whole_seconds(wait)), "{case}"),
            ExpectedRetry::AtMost(wait) => assert!((1..=whole_seconds(wait)).contains(&seconds.unwrap()), "{case}: {seconds:?}"),
        }
        let challenge = header("www-authenticate");
        let expects_challenge =
            status == 401 || *reason == reasons::INSUFFICIENT_SCOPE || self.headers.iter().any(|(name, _)| *name == "www-authenticate");
        assert_eq!(challenge.is_some_and(|challenge| challenge.starts_with("Bearer ")), expects_challenge, "{case}: {challenge:?}");
        for (name, value) in self.headers {
            assert_eq!(header(name), Some(*value), "{case}: {name}");
        }
    }

    /// Compares code, details and metadata.
    pub(crate) fn assert_grpc(&self, case: &str, status: &Status) {
        let reason = self.reason;
        assert_eq!(status.code(), reason.grpc, "{case}: {status:?}");
        // The cause stays in the process and never leaves it.
        let sent = Status::from_header_map(status.clone().into_http::<()>().headers()).unwrap();
        assert!(!status.message().is_empty() && !format!("{sent:?}").contains("hunter2"), "{case}: {sent:?}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{case}: {status:?}"));
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.slug.to_ascii_uppercase().as_str(), "palisade"), "{case}");
        assert_eq!(info.metadata.get("orderId").map(String::as_str), self.has_metadata.then_some("7"), "{case}");
        assert_eq!(info.metadata.get("allowed").map(String::as_str), self.has_metadata.then_some("A,B"), "{case}");
        let violations_sent = details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
        let violations_sent: Vec<_> =
            violations_sent.iter().map(|rule| (rule.field.as_str(), rule.reason.to_ascii_lowercase(), rule.description.as_str())).collect();
        let violations =
            self.violations.iter().map(|violation| (violation.field.as_str(), violation.code.to_string(), violation.message.as_str()));
        assert_eq!(violations_sent, violations.collect::<Vec<_>>(), "{case}");

        let delay = details.retry_info().and_then(|info| info.retry_delay);
        let pushback = status.metadata().get(PUSHBACK_HEADER).map(|value| value.to_str().unwrap().parse::<i64>().unwrap());
        let millis = |wait: Duration| i64::try_from(wait.as_millis()).unwrap();
        match self.retry {
            ExpectedRetry::Silent => assert_eq!((delay, pushback), (None, None), "{case}"),
            ExpectedRetry::Never => assert_eq!((delay, pushback), (None, Some(-1)), "{case}"),
            ExpectedRetry::Exactly(wait) => assert_eq!((delay, pushback), (Some(wait), Some(millis(wait))), "{case}"),
            ExpectedRetry::AtMost(wait) => {
                assert!(delay.unwrap() > Duration::ZERO && delay.unwrap() <= wait, "{case}: {delay:?}");
                assert_eq!(pushback, delay.map(millis), "{case}");
            }
        }
        // The failure origin decides which breaker opens: not the one in front of a healthy
        // service.
        let origin = status.metadata().get(FAILURE_ORIGIN_HEADER).map(|value| value.to_str().unwrap());
        assert_eq!(origin, self.origin, "{case}");
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

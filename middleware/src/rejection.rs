//! Every way a request is refused, with its HTTP and gRPC code: one table, so that a refusal means the same everywhere.

use std::{borrow::Cow, collections::HashMap, convert::Infallible, error::Error as StdError, fmt, sync::Arc, time::Duration};

use http::StatusCode;
use tonic::Code;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

mod log;
mod from_status;
pub mod reasons;

pub use log::causes;
pub(crate) use log::log_status;

/// `ErrorInfo.domain` of every refusal.
pub const DOMAIN: &str = "palisade";

/// Names the service whose failure an answer reports. A service that answers so because one behind it failed sets it, so that its own
/// callers do not take it for broken.
pub const FAILURE_ORIGIN_HEADER: &str = "x-failure-origin";

/// gRFC A6: how many milliseconds to wait before a retry; negative forbids it.
pub const PUSHBACK_HEADER: &str = "grpc-retry-pushback-ms";

/// Why a request was refused: the stable part of a refusal.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable identifier for callers, `snake_case`. `ErrorInfo.reason` is the same in upper case.
    pub slug: &'static str,
    /// The answer over HTTP.
    pub http: StatusCode,
    /// The answer over gRPC.
    pub grpc: Code,
    /// One human line, the same for every occurrence (RFC 9457 `title`).
    pub title: &'static str,
}

impl Reason {
    /// A reason of an API's own.
    pub const fn new(slug: &'static str, http: StatusCode, grpc: Code, title: &'static str) -> Self {
        Self { slug, http, grpc, title }
    }
}

/// One broken rule of a request body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field as the caller wrote it, e.g. `items[0].quantity`.
    pub field: String,
    /// Stable slug of the rule.
    pub code: Cow<'static, str>,
    /// One human sentence.
    pub message: String,
}

impl Violation {
    /// `field` broke the rule `code`.
    pub fn new(field: impl Into<String>, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), code: code.into(), message: message.into() }
    }
}

type Source = Box<dyn StdError + Send + Sync>;

/// A refused request. Layers fail with it, [`crate::respond`] answers with it.
///
/// ```
/// use palisade_middleware::rejection::{Rejection, Violation};
///
/// let refused = Rejection::invalid(vec![Violation::new("price", "out_of_range", "must not be negative")]);
/// assert_eq!(refused.reason().http, 400);
/// assert_eq!(tonic::Status::from(refused).code(), tonic::Code::InvalidArgument);
/// ```
pub struct Rejection(Box<Inner>);

struct Inner {
    reason: &'static Reason,
    detail: Cow<'static, str>,
    retry: Retry,
    violations: Vec<Violation>,
    metadata: Vec<(&'static str, MetadataValue)>,
    headers: Vec<(http::HeaderName, http::HeaderValue)>,
    origin: Option<Cow<'static, str>>,
    source: Option<Source>,
}

/// A machine-readable fact of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataValue {
    /// One value.
    Text(String),
    /// Several; a JSON array over HTTP, joined by commas in `ErrorInfo.metadata`.
    List(Vec<String>),
    /// Structured; JSON on both.
    Json(serde_json::Value),
}

impl From<String> for MetadataValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for MetadataValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<String>> for MetadataValue {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

impl From<serde_json::Value> for MetadataValue {
    fn from(value: serde_json::Value) -> Self {
        Self::Json(value)
    }
}

impl fmt::Display for MetadataValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::List(list) => f.write_str(&list.join(",")),
            Self::Json(value) => value.fmt(f),
        }
    }
}

/// What the caller is told about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing.
    Unspecified,
    /// Not before this long.
    After(Duration),
    /// Not at all: who refused has tried already (gRFC A6 pushback -1).
    Never,
}

impl Rejection {
    /// Refuses for `reason`; `detail` is for the caller: ours, never a driver's or parser's words.
    pub fn new(reason: &'static Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            reason,
            detail: detail.into(),
            retry: Retry::Unspecified,
            violations: Vec::new(),
            metadata: Vec::new(),
            headers: Vec::new(),
            origin: None,
            source: None,
        }))
    }

    /// A bug or a broken dependency of ours: the caller learns nothing but that, the cause goes to the log.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(&reasons::INTERNAL, "an unexpected error").with_source(source)
    }

    /// All broken rules at once.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let detail = match violations.len() {
            1 => "1 field is invalid".to_owned(),
            n => format!("{n} fields are invalid"),
        };
        Self::new(&reasons::VALIDATION_FAILED, detail).with_violations(violations)
    }

    /// Trying again makes sense after `wait`.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry = Retry::After(wait);
        self
    }

    /// Trying again makes it worse.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// With the rules that were broken.
    #[must_use]
    pub fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations = violations;
        self
    }

    /// With a machine-readable fact; a member of the problem and `ErrorInfo.metadata`. Keys are camelCase.
    #[must_use]
    pub fn with_metadata(mut self, key: &'static str, value: impl Into<MetadataValue>) -> Self {
        self.0.metadata.push((key, value.into()));
        self
    }

    /// With a header on the HTTP answer, e.g. `WWW-Authenticate`.
    #[must_use]
    pub fn with_header(mut self, name: http::HeaderName, value: http::HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// With the name of the service that failed: not the one that refuses for it.
    #[must_use]
    pub fn with_origin(mut self, service: impl Into<Cow<'static, str>>) -> Self {
        self.0.origin = Some(service.into());
        self
    }

    /// With the cause, for the log alone.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Why.
    pub fn reason(&self) -> &'static Reason {
        self.0.reason
    }

    /// The human explanation for the caller.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What the caller is told about trying again.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The rules that were broken.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The machine-readable facts.
    pub fn metadata(&self) -> &[(&'static str, MetadataValue)] {
        &self.0.metadata
    }

    /// Headers for the HTTP answer.
    pub fn headers(&self) -> &[(http::HeaderName, http::HeaderValue)] {
        &self.0.headers
    }
}

impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejection")
            .field("reason", &self.0.reason.slug)
            .field("detail", &self.0.detail)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.reason.slug, self.0.detail)
    }
}

impl StdError for Rejection {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Infallible> for Rejection {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<Rejection> for tonic::Status {
    /// `google.rpc.Status` with `ErrorInfo`, `BadRequest` for violations, `RetryInfo` and pushback where waiting helps. Its source is the
    /// refusal, which never leaves the process: whoever answers the request with it logs the cause.
    fn from(rejection: Rejection) -> Self {
        let mut status = rejection.to_status();
        status.set_source(Arc::new(rejection));
        status
    }
}

impl Rejection {
    /// What a gRPC caller is told.
    pub(crate) fn to_status(&self) -> tonic::Status {
        let Inner { reason, detail, retry, violations, metadata, origin, .. } = &*self.0;
        let metadata: HashMap<String, String> = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.to_string())).collect();
        let mut details = ErrorDetails::with_error_info(reason.slug.to_ascii_uppercase(), DOMAIN, metadata);
        if !violations.is_empty() {
            let fields = violations.iter().map(|violation| {
                let mut field = FieldViolation::new(violation.field.clone(), violation.message.clone());
                field.reason = violation.code.to_ascii_uppercase();
                field
            });
            details.set_bad_request(fields.collect::<Vec<_>>());
        }
        let pushback = match *retry {
            Retry::Unspecified => None,
            Retry::Never => Some("-1".to_owned()),
            Retry::After(wait) => {
                details.set_retry_info(Some(wait));
                Some(wait.as_millis().to_string())
            }
        };
        let mut status = tonic::Status::with_error_details(reason.grpc, detail.clone(), details);
        let origin = origin.as_deref().or((**reason == reasons::UPSTREAM_UNAVAILABLE).then_some("dependency"));
        if let Some(origin) = origin.and_then(|name| name.parse().ok()) {
            // Not this service is sick but one behind it: the caller's breaker must not open for us.
            status.metadata_mut().insert(FAILURE_ORIGIN_HEADER, origin);
        }
        if let Some(value) = pushback.and_then(|text| text.parse().ok()) {
            status.metadata_mut().insert(PUSHBACK_HEADER, value);
        }
        status
    }
}

#[cfg(test)]
mod tests;

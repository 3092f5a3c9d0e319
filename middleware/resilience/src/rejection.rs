//! Rejections: all reasons a request can fail for, with their HTTP status and gRPC code in one
//! table shared by all services.

use std::{borrow::Cow, convert::Infallible, error::Error as StdError, fmt, sync::Arc, time::Duration};

use http::HeaderMap;

use crate::time_limit::LimitOrigin;

#[cfg_attr(not(feature = "error-details"), path = "rejection/no_error_details.rs")]
mod error_details;
mod from_status;
mod log;
mod metadata;
pub mod reasons;
mod transport_error;
mod violation;

#[doc(no_inline)]
pub use http::StatusCode;
pub(crate) use log::log_status;
#[cfg(feature = "opentelemetry")]
pub(crate) use log::source_rejection;
pub use log::{causes, chain};
pub use metadata::MetadataValue;
#[doc(no_inline)]
pub use tonic::Code;
pub use transport_error::TransportError;
pub use violation::Violation;

/// Response metadata that names the failed service. A service sets it when it fails because of a
/// dependency, so that the breakers of its own callers do not count the failure against it.
pub const FAILURE_ORIGIN_HEADER: &str = "x-failure-origin";

/// Response metadata of load shedding, like `x-envoy-overloaded`: the service works at its
/// capacity. A breaker that opened would take the capacity away, too.
pub const OVERLOADED_HEADER: &str = "x-overloaded";

/// Returns whether these headers or trailers of a response of `target` name another service as the
/// failed one.
pub(crate) fn is_from_dependency(headers: &HeaderMap, target: &str) -> bool {
    headers.get(FAILURE_ORIGIN_HEADER).is_some_and(|origin| origin.as_bytes() != target.as_bytes())
}

/// Retry pushback (gRFC A6): milliseconds until a retry is allowed; a negative value forbids
/// retries.
pub const PUSHBACK_HEADER: &str = "grpc-retry-pushback-ms";

/// Reason of a rejection: its constant part.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable identifier for callers, `snake_case`. `ErrorInfo.reason` is the same in upper case.
    pub slug: &'static str,
    /// HTTP status.
    pub http: StatusCode,
    /// gRPC code.
    pub grpc: Code,
    /// One-line summary, the same for every occurrence (RFC 9457 `title`).
    pub title: &'static str,
}

impl Reason {
    /// Creates an API-specific reason.
    pub const fn new(slug: &'static str, http: StatusCode, grpc: Code, title: &'static str) -> Self {
        Self { slug, http, grpc, title }
    }
}

impl Reason {
    /// Returns whether this reason, returned by a target, is a fault of this service: it supplied
    /// the token and chose the method, so its own caller cannot fix it.
    pub fn is_internal_fault(&self) -> bool {
        [&reasons::UNAUTHENTICATED, &reasons::TOKEN_EXPIRED, &reasons::UNIMPLEMENTED, &reasons::INTERNAL].contains(&self)
    }
}

type Source = Box<dyn StdError + Send + Sync>;

/// Rejected request. Layers return it as an error, and [`crate::respond`] turns it into a response.
///
/// ```
/// use palisade_resilience::rejection::{Rejection, Violation};
///
/// let violation = Violation::new("price", "out_of_range", "must not be negative");
/// let rejection = Rejection::invalid(vec![violation]);
/// assert_eq!(rejection.reason().http, 400);
/// assert_eq!(tonic::Status::from(rejection).code(), tonic::Code::InvalidArgument);
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
    chosen_by: Option<LimitOrigin>,
    source: Option<Source>,
}

/// Retry advice for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No advice.
    Unspecified,
    /// Retry no earlier than after this duration.
    After(Duration),
    /// Do not retry, for example because a service further down has already retried (gRFC A6
    /// pushback -1).
    Never,
}

/// Response extension with the rejection behind a response. Handlers leave it for the `Respond`
/// layer to encode; the client stack uses it to propagate the cause.
#[derive(Clone)]
pub struct RejectionExtension(pub Arc<Rejection>);

impl Rejection {
    /// Creates a rejection. The caller sees `detail`: it must not contain text of a driver or
    /// parser.
    pub fn new(reason: &'static Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            reason,
            detail: detail.into(),
            retry: Retry::Unspecified,
            violations: Vec::new(),
            metadata: Vec::new(),
            headers: Vec::new(),
            origin: None,
            chosen_by: None,
            source: None,
        }))
    }

    /// Creates an internal error: a bug or a broken dependency. The cause is logged and hidden from
    /// the caller.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(&reasons::INTERNAL, "an unexpected error").with_source(source)
    }

    /// Creates a validation error with all violated rules.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let detail = match violations.len() {
            1 => "1 field is invalid".to_owned(),
            n => format!("{n} fields are invalid"),
        };
        Self::new(&reasons::VALIDATION_FAILED, detail).with_violations(violations)
    }

    /// Allows a retry after `wait`.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry = Retry::After(wait);
        self
    }

    /// Sets the retry advice.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Sets the violated rules.
    #[must_use]
    pub fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations = violations;
        self
    }

    /// Adds machine-readable metadata: a member of the problem document and of
    /// `ErrorInfo.metadata`. Keys are camelCase.
    #[must_use]
    pub fn with_metadata(mut self, key: &'static str, value: impl Into<MetadataValue>) -> Self {
        self.0.metadata.push((key, value.into()));
        self
    }

    /// Adds an HTTP response header, e.g. `WWW-Authenticate`.
    #[must_use]
    pub fn with_header(mut self, name: http::HeaderName, value: http::HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Sets the name of the service that failed, if it is not the rejecting one.
    #[must_use]
    pub fn with_origin(mut self, service: impl Into<Cow<'static, str>>) -> Self {
        self.0.origin = Some(service.into());
        self
    }

    /// Sets the cause, which is only logged.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Marks a timeout that is no evidence about the service: the time was chosen by the caller, or
    /// too little of it was left.
    #[must_use]
    pub fn without_evidence(mut self, chosen_by: LimitOrigin) -> Self {
        self.0.chosen_by = Some(chosen_by);
        self
    }

    /// Returns whether this timeout says nothing about the service.
    pub fn is_without_evidence(&self) -> bool {
        self.0.chosen_by.is_some()
    }

    /// Returns whether this is a timeout whose time the caller chose.
    pub fn is_due_to_caller(&self) -> bool {
        self.0.chosen_by == Some(LimitOrigin::Caller)
    }

    /// Reason of the rejection.
    pub fn reason(&self) -> &'static Reason {
        self.0.reason
    }

    /// Human-readable detail for the caller.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Retry advice for the caller.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Violated rules.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// Machine-readable metadata.
    pub fn metadata(&self) -> &[(&'static str, MetadataValue)] {
        &self.0.metadata
    }

    /// HTTP response headers.
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
    /// Builds a `google.rpc.Status` with `ErrorInfo`, `BadRequest` for violations, and `RetryInfo`
    /// and pushback if a retry may succeed. The source of the status is the rejection. It stays in
    /// the process, so that the response layer can log the cause.
    fn from(rejection: Rejection) -> Self {
        let mut status = rejection.to_status();
        status.set_source(Arc::new(rejection));
        status
    }
}

impl Rejection {
    /// Builds the status for a gRPC caller. The details need the feature `error-details`.
    pub fn to_status(&self) -> tonic::Status {
        let Inner { reason, retry, origin, .. } = &*self.0;
        let mut status = error_details::status(self);
        let origin = origin.as_deref().or((**reason == reasons::UPSTREAM_UNAVAILABLE).then_some("dependency"));
        if let Some(origin) = origin.and_then(|name| name.parse().ok()) {
            // A dependency failed, not this service: the caller's breaker must stay closed.
            status.metadata_mut().insert(FAILURE_ORIGIN_HEADER, origin);
        }
        if **reason == reasons::OVERLOADED {
            status.metadata_mut().insert(OVERLOADED_HEADER, tonic::metadata::MetadataValue::from_static("true"));
        }
        let pushback = match *retry {
            Retry::Unspecified => None,
            Retry::Never => Some("-1".to_owned()),
            Retry::After(wait) => Some(wait.as_millis().to_string()),
        };
        if let Some(value) = pushback.and_then(|text| text.parse().ok()) {
            status.metadata_mut().insert(PUSHBACK_HEADER, value);
        }
        status
    }
}

#[cfg(test)]
mod tests;

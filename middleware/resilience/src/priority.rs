//! Request priority under overload: defined by the method table, propagated between our own
//! services.

use http::{HeaderName, HeaderValue};

/// Name of a [`Priority`]. Ignored from external callers, which would all send the highest.
pub const PRIORITY_HEADER: HeaderName = HeaderName::from_static("x-request-priority");

/// Request priority, highest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Failure breaks an operation in progress; shed last.
    Critical,
    /// A user waits for the response.
    #[default]
    Default,
    /// No user waits; the request will be repeated.
    Batch,
    /// The response is optional; shed first.
    BestEffort,
}

impl Priority {
    /// All priorities, highest first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Default, Self::Batch, Self::BestEffort];

    /// Returns the header value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Batch => "batch",
            Self::BestEffort => "best-effort",
        }
    }

    pub(crate) fn parse(value: &HeaderValue) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| value == priority.name())
    }
}

impl From<Priority> for HeaderValue {
    fn from(priority: Priority) -> Self {
        Self::from_static(priority.name())
    }
}

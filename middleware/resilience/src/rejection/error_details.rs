//! `google.rpc.ErrorDetails` of gRPC statuses: `ErrorInfo`, `BadRequest` and `RetryInfo`.

use std::{collections::HashMap, time::Duration};

use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::{Reason, Rejection, Retry, Violation, reasons};
use crate::naming;

/// Details of the status of a called service.
pub(super) struct ReadDetails {
    /// Reason of our own domain, if the status has one.
    pub(super) reason: Option<&'static Reason>,
    pub(super) violations: Vec<Violation>,
    pub(super) retry_delay: Option<Duration>,
}

/// Reads the details of a status.
pub(super) fn read(status: &Status) -> ReadDetails {
    let details = status.get_error_details();
    let own = details.error_info().filter(|info| info.domain == naming::current().error_domain);
    ReadDetails {
        reason: own.and_then(|info| reasons::find(&info.reason)),
        violations: Violation::from_error_details(&details),
        retry_delay: details.retry_info().and_then(|info| info.retry_delay),
    }
}

/// Returns whether a service with this stack rejected the call.
pub(super) fn is_own(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.domain == naming::current().error_domain)
}

/// Builds the status of a rejection, without metadata.
pub(super) fn status(rejection: &Rejection) -> Status {
    let reason = rejection.reason();
    let metadata: HashMap<String, String> =
        rejection.metadata().iter().map(|(key, value)| ((*key).to_owned(), value.to_string())).collect();
    let mut details = ErrorDetails::with_error_info(reason.slug.to_ascii_uppercase(), naming::current().error_domain, metadata);
    if !rejection.violations().is_empty() {
        let fields = rejection.violations().iter().map(|violation| {
            let mut field = FieldViolation::new(violation.field.clone(), violation.message.clone());
            field.reason = violation.code.to_ascii_uppercase();
            field
        });
        details.set_bad_request(fields.collect::<Vec<_>>());
    }
    if let Retry::After(wait) = rejection.retry() {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(reason.grpc, rejection.detail(), details)
}

impl Violation {
    /// Extracts the violations of a status (`BadRequest`).
    pub fn from_error_details(details: &ErrorDetails) -> Vec<Self> {
        let violations = details.bad_request().map(|request| request.field_violations.as_slice()).unwrap_or_default();
        violations.iter().map(|rule| Self::new(&rule.field, rule.reason.to_ascii_lowercase(), &rule.description)).collect()
    }
}

use tonic::Code;
use tonic_types::StatusExt;

use super::*;

#[test]
fn status_has_reason_violations_and_pushback() {
    let rejection = Rejection::invalid(vec![Violation::new("price", "out_of_range", "must not be negative")])
        .with_retry_after(Duration::from_millis(1500))
        .with_metadata("orderId", "7");
    let status = tonic::Status::from(rejection);
    let details = status.get_error_details();
    assert_eq!(status.code(), Code::InvalidArgument);
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("VALIDATION_FAILED", "palisade"));
    assert_eq!(info.metadata["orderId"], "7");
    assert_eq!(details.bad_request().unwrap().field_violations[0].reason, "OUT_OF_RANGE");
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_millis(1500)));
    assert_eq!(status.metadata().get(PUSHBACK_HEADER).unwrap(), "1500");
}

#[test]
fn reason_slugs_are_unique() {
    let mut slugs: Vec<_> = reasons::ALL.iter().map(|reason| reason.slug).collect();
    slugs.sort_unstable();
    slugs.dedup();
    assert_eq!(slugs.len(), reasons::ALL.len());
}

#[test]
fn cause_is_in_source_but_not_in_display() {
    let rejection = Rejection::internal("password=hunter2");
    assert!(!rejection.to_string().contains("hunter2"));
    assert!(StdError::source(&rejection).unwrap().to_string().contains("hunter2"));
}

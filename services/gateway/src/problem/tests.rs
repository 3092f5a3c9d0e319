use std::{collections::HashMap, time::Duration};

use palisade_middleware::rejection::Retry;

use super::*;

fn status(reason: &str, domain: &str) -> Status {
    let metadata = HashMap::from([("orderId", "7"), ("allowed", "CANCELLED,COMPLETED"), ("host", "db-1")]);
    let metadata: HashMap<String, String> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Status::with_error_details(Code::FailedPrecondition, "details", ErrorDetails::with_error_info(reason, domain, metadata))
}

#[test]
fn known_reason_preserves_detail_and_metadata() {
    let rejection = rejection(status("ILLEGAL_TRANSITION", naming::current().error_domain));
    assert_eq!((rejection.reason(), rejection.detail()), (&shop_reasons::ILLEGAL_TRANSITION, "details"));
    let allowed = MetadataValue::List(vec!["CANCELLED".to_owned(), "COMPLETED".to_owned()]);
    assert_eq!(rejection.metadata(), [("orderId", MetadataValue::Text("7".to_owned())), ("allowed", allowed)]);
}

#[test]
fn violations_have_lower_case_codes() {
    let status = Status::from(Rejection::invalid(vec![Violation::new("name", "too_long", "must be shorter")]));
    assert_eq!(rejection(status).violations(), [Violation::new("name", "too_long", "must be shorter")]);
}

#[test]
fn retry_delay_becomes_retry_after() {
    let status = Status::from(Rejection::new(&reasons::REQUEST_IN_PROGRESS, "running").with_retry_after(Duration::from_secs(2)));
    assert_eq!(rejection(status).retry(), Retry::After(Duration::from_secs(2)));
}

#[test]
fn rejected_internal_token_is_an_internal_error() {
    let statuses = [
        Status::unauthenticated("no"),
        Status::permission_denied("no"),
        Status::from(Rejection::new(&reasons::UNAUTHENTICATED, "no")),
        Status::from(Rejection::new(&reasons::TOKEN_EXPIRED, "no")),
    ];
    for status in statuses {
        assert_eq!(rejection(status).reason(), &reasons::INTERNAL);
    }
}

#[test]
fn insufficient_scope_of_service_is_passed_on() {
    let status = Status::from(Rejection::new(&reasons::INSUFFICIENT_SCOPE, "orders:admin is needed"));
    assert_eq!(rejection(status).reason(), &reasons::INSUFFICIENT_SCOPE);
}

#[test]
fn foreign_status_is_mapped_by_code_only() {
    let expectations = [
        (Code::Unavailable, &reasons::UPSTREAM_UNAVAILABLE),
        (Code::DeadlineExceeded, &reasons::DEADLINE_EXCEEDED),
        (Code::ResourceExhausted, &reasons::OVERLOADED),
        (Code::Aborted, &shop_reasons::CONFLICT),
        (Code::NotFound, &reasons::NOT_FOUND),
        (Code::Unimplemented, &reasons::INTERNAL),
        (Code::Unknown, &reasons::INTERNAL),
        (Code::DataLoss, &reasons::INTERNAL),
    ];
    for (code, reason) in expectations {
        let rejection = rejection(Status::new(code, "connect to 10.0.0.7 failed"));
        assert_eq!(rejection.reason(), reason, "{code:?}");
        assert!(!rejection.detail().contains("10.0.0.7"), "{code:?}");
    }
    assert_eq!(rejection(status("PRODUCT_IN_USE", "example.com")).reason(), &shop_reasons::CONFLICT);
}

#[test]
fn own_violation_replaces_upstream_of_same_field() {
    let own = || vec![Violation::new("price", "too_many_decimals", "must have at most 2 decimals")];
    let upstream = Rejection::invalid(vec![Violation::new("name", "required", "n"), Violation::new("price", "out_of_range", "p")]);
    let merged = merge_violations::<()>(Err(upstream.into()), own()).unwrap_err();
    let codes: Vec<_> = merged.violations().iter().map(|violation| violation.code.to_string()).collect();
    assert_eq!(codes, ["too_many_decimals", "required"]);
    let missing = Rejection::new(&reasons::NOT_FOUND, "no such product");
    assert_eq!(merge_violations::<()>(Err(missing.into()), own()).unwrap_err().reason(), &reasons::NOT_FOUND);
}

#[test]
fn accepted_invalid_body_is_an_internal_error() {
    let violations = vec![Violation::new("price", "required", "must be given")];
    assert_eq!(merge_violations(Ok(Response::new(())), violations).unwrap_err().reason(), &reasons::INTERNAL);
    assert!(merge_violations(Ok(Response::new(())), Vec::new()).is_ok());
}

#[test]
fn query_violation_is_an_invalid_parameter() {
    let rejection =
        from_query_status(Status::from(Rejection::invalid(vec![Violation::new("minPrice", "out_of_range", "must not be negative")])));
    assert_eq!((rejection.reason(), rejection.detail()), (&reasons::INVALID_PARAMETER, "minPrice must not be negative"));
    assert!(rejection.violations().is_empty());
}

#[test]
fn reason_slugs_are_unique() {
    let mut slugs: Vec<_> = reasons::ALL.iter().chain(shop_reasons::ALL).map(|reason| reason.slug).collect();
    slugs.sort_unstable();
    slugs.dedup();
    assert_eq!(slugs.len(), reasons::ALL.len() + shop_reasons::ALL.len());
}

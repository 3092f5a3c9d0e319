use tonic::Status;

use super::*;

fn trailers_only(code: Code) -> Response<()> {
    Status::new(code, "").into_http()
}

#[test]
fn classify_grpc_codes() {
    use Code::{
        Aborted, AlreadyExists, Cancelled, DataLoss, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, NotFound, Ok,
        OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable, Unimplemented, Unknown,
    };
    let works = [
        Ok,
        InvalidArgument,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Unauthenticated,
    ];
    let broken = [Unavailable, Unknown, Internal, DataLoss];
    let cases = works
        .map(|code| (code, CallOutcome::Success.into()))
        .into_iter()
        .chain(broken.map(|code| (code, CallOutcome::Failure.into())))
        .chain([
            (DeadlineExceeded, Classification::TimedOut),
            (ResourceExhausted, CallOutcome::Throttled.into()),
            (Cancelled, CallOutcome::Cancelled.into()),
        ]);
    for (code, finding) in cases {
        let response = trailers_only(code);
        assert_eq!(classify_grpc_head(&response, "products"), Some(finding), "{code:?}");
        assert_eq!(classify_trailers(Some(response.headers()), "products"), finding, "{code:?}");
    }
}

#[test]
fn missing_status_is_a_failure_only_at_the_end() {
    assert_eq!(classify_grpc_head(&Response::new(()), "products"), None);
    assert_eq!(classify_trailers(None, "products"), CallOutcome::Failure.into());
    assert_eq!(classify_trailers(Some(&HeaderMap::new()), "products"), CallOutcome::Failure.into());
}

#[test]
fn classify_non_grpc_by_http_status() {
    for (status, verdict) in [
        (500, CallOutcome::Failure),
        (503, CallOutcome::Failure),
        (501, CallOutcome::Success),
        (505, CallOutcome::Success),
        (404, CallOutcome::Success),
        (408, CallOutcome::Success),
        (429, CallOutcome::Throttled),
    ] {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        assert_eq!(classify_grpc_head(&response, "products"), Some(verdict.into()), "{status}");
    }
}

#[test]
fn dependency_failure_is_neutral() {
    for (code, origin, finding) in [
        (Code::Unavailable, "orders", CallOutcome::Neutral.into()),
        (Code::Internal, "orders", CallOutcome::Neutral.into()),
        (Code::DeadlineExceeded, "orders", CallOutcome::Neutral.into()),
        (Code::NotFound, "orders", CallOutcome::Success.into()),
        (Code::Unavailable, "products", CallOutcome::Failure.into()),
        (Code::DeadlineExceeded, "products", Classification::TimedOut),
    ] {
        let mut response = trailers_only(code);
        response.headers_mut().insert(rejection::FAILURE_ORIGIN_HEADER, http::HeaderValue::from_static(origin));
        assert_eq!(classify_grpc_head(&response, "products"), Some(finding), "{code:?} of {origin}");
        assert_eq!(classify_trailers(Some(response.headers()), "products"), finding, "{code:?} of {origin}");
    }
}

#[test]
fn load_shedding_is_no_failure() {
    let mut response = trailers_only(Code::Unavailable);
    let shed = tonic::Status::from(Rejection::new(&reasons::OVERLOADED, "too many requests in flight"));
    response.headers_mut().extend(shed.metadata().clone().into_headers());
    assert_eq!(classify_grpc_head(&response, "products"), Some(CallOutcome::Throttled.into()));
    assert_eq!(classify_trailers(Some(response.headers()), "products"), CallOutcome::Throttled.into());
}

#[test]
fn only_timeouts_among_local_rejections_count() {
    let local = Rejection::new(&reasons::OVERLOADED, "");
    assert_eq!(classify_rejection(&local), CallOutcome::Neutral.into());
    assert_eq!(classify_rejection(&Rejection::internal("no key to sign with")), CallOutcome::Neutral.into());
    assert_eq!(classify_rejection(&deadline::elapsed(Duration::from_secs(1))), Classification::TimedOut);
    let unavailable = || Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "");
    assert_eq!(classify_rejection(&unavailable()), CallOutcome::Neutral.into());
    assert_eq!(classify_rejection(&unavailable().with_source("error of a foreign client")), CallOutcome::Failure.into());
}

#[test]
fn pushback_is_a_retry_after_hint() {
    for (pushback, wait) in [("250", Some(Duration::from_millis(250))), ("-1", None), ("abc", None)] {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-retry-pushback-ms", http::HeaderValue::from_static(pushback));
        assert_eq!(retry_after_hint(&headers), wait, "{pushback}");
    }
}

#[test]
fn http_head_decides_unless_body_is_truncated() {
    let head = |status: u16| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        // By chance: it has no meaning in HTTP.
        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("14"));
        classify_head(Protocol::Http, &Ok(response), "idp")
    };
    for (status, finding) in [
        (200, None),
        (204, None),
        (302, None),
        (404, None),
        (429, Some(CallOutcome::Throttled.into())),
        (500, Some(CallOutcome::Failure.into())),
        (503, Some(CallOutcome::Failure.into())),
    ] {
        assert_eq!(head(status).map(|(finding, _)| finding), finding, "{status}");
    }
    for (end, finding) in [
        (End::Complete(None), CallOutcome::Success.into()),
        (End::Dropped, CallOutcome::Success.into()),
        (End::Failed, CallOutcome::Failure.into()),
        (End::Late, Classification::TimedOut),
    ] {
        assert_eq!(classify_end(Protocol::Http, end, "idp"), Some((finding, None)), "{end:?}");
    }
}

use std::sync::Arc;

use http::HeaderMap;
use tonic::Status;

use super::*;
fn outcome_of(side: Role, head: Option<Response<()>>, end: Option<End<'_>>) -> ResponseOutcome {
    let mut conclusion = ResponseOutcome::pending(side);
    if let Some(response) = head {
        conclusion.record_head(&response);
    }
    if let Some(end) = end {
        conclusion.record_end(end);
    }
    conclusion
}

#[test]
fn http_server_outcome_is_status_unless_truncated() {
    let ok = || Some(Response::new(()));
    for (head, end, status) in [
        (ok(), Some(End::Complete(None)), 200),
        (ok(), Some(End::Failed), 500),
        (ok(), Some(End::Late), 504),
        (ok(), Some(End::Dropped), CLIENT_CLOSED_REQUEST),
        (ok(), None, CLIENT_CLOSED_REQUEST),
        (None, None, CLIENT_CLOSED_REQUEST),
    ] {
        assert_eq!(outcome_of(Role::Server(Protocol::Http), head, end).http_status(), status, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_is_attributed_to_the_chooser_of_the_time() {
    let timed_out = |protocol| match protocol {
        Protocol::Http => Response::builder().status(504).body(()).unwrap(),
        Protocol::Grpc => Status::deadline_exceeded("").into_http(),
    };
    for protocol in [Protocol::Http, Protocol::Grpc] {
        for (chosen_by, callers) in [(None, false), (Some(LimitOrigin::Operator), false), (Some(LimitOrigin::Caller), true)] {
            let mut head = timed_out(protocol);
            if let Some(chosen_by) = chosen_by {
                head.extensions_mut().insert(NoEvidence::expired(chosen_by));
            }
            let outcome = outcome_of(Role::Server(protocol), Some(head), Some(End::Complete(None)));
            assert_eq!(outcome.is_caller_timeout(), callers, "{protocol:?} {chosen_by:?}");
        }
    }
    let mut ok = Response::new(());
    ok.extensions_mut().insert(NoEvidence::expired(LimitOrigin::Caller));
    let late = outcome_of(Role::Server(Protocol::Http), Some(ok), Some(End::Late));
    assert_eq!((late.http_status(), late.is_caller_timeout()), (504, true));
}

#[test]
fn grpc_outcome_comes_from_head_or_trailers() {
    let not_found = || Some(Status::not_found("").into_http());
    let begun = || Some(Response::new(()));
    let trailers: HeaderMap = Status::aborted("").into_http::<()>().headers().clone();
    for (head, end, code) in [
        (not_found(), Some(End::Complete(None)), Code::NotFound),
        (not_found(), Some(End::Dropped), Code::NotFound),
        (not_found(), Some(End::Failed), Code::NotFound),
        (begun(), Some(End::Complete(Some(&trailers))), Code::Aborted),
        (begun(), Some(End::Complete(None)), Code::Unknown),
        (begun(), Some(End::Failed), Code::Internal),
        (begun(), Some(End::Late), Code::DeadlineExceeded),
        (begun(), Some(End::Dropped), Code::Cancelled),
        (None, None, Code::Cancelled),
    ] {
        assert_eq!(outcome_of(Role::Server(Protocol::Grpc), head, end).grpc_code(), code, "{end:?}");
    }
}

#[test]
fn end_of_a_stream_by_its_reader_is_no_error() {
    let trailers = |code: Status| -> HeaderMap { code.into_http::<()>().headers().clone() };
    let (late, unavailable) = (trailers(Status::deadline_exceeded("")), trailers(Status::unavailable("")));
    for role in [Role::Server(Protocol::Grpc), Role::Client(Protocol::Grpc)] {
        for (stream, end, by_reader) in [
            (true, End::Dropped, true),
            (true, End::Complete(Some(&late)), true),
            (true, End::Late, true),
            (true, End::Complete(Some(&unavailable)), false),
            (true, End::Failed, false),
            (false, End::Dropped, false),
            (false, End::Complete(Some(&late)), false),
        ] {
            let mut outcome = ResponseOutcome::pending(role).of_stream(stream);
            outcome.record_head(&Response::new(()));
            outcome.record_end(end);
            assert_eq!(outcome.is_ended_by_reader(), by_reader, "{role:?} {stream} {end:?}");
        }
        let mut no_head = ResponseOutcome::pending(role).of_stream(true);
        no_head.record_head(&Status::deadline_exceeded("").into_http::<()>());
        no_head.record_end(End::Complete(None));
        assert!(!no_head.is_ended_by_reader(), "a stream that was not opened in time");
    }
}

#[test]
fn truncated_grpc_response_counts_as_unavailable() {
    let begun = || Some(Response::new(()));
    let side = Role::Client(Protocol::Grpc);
    assert_eq!(outcome_of(side, begun(), Some(End::Failed)).grpc_code(), Code::Unavailable);
    assert_eq!(outcome_of(side, begun(), Some(End::Dropped)).grpc_code(), Code::Cancelled);
    let mut refused = outcome_of(side, None, None);
    refused.record_rejection(&Rejection::new(&reasons::RATE_LIMITED, ""));
    assert_eq!(refused.grpc_code(), Code::ResourceExhausted);
}

#[test]
fn http_client_outcome_is_head_unless_truncated() {
    let answer = |status: u16| {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        Some(response)
    };
    let refused = || {
        let mut response = answer(503);
        let rejection = Rejection::new(&reasons::OVERLOADED, "no permit");
        response.as_mut().unwrap().extensions_mut().insert(RejectionExtension(Arc::new(rejection)));
        response
    };
    for (head, end, status, error) in [
        (answer(200), Some(End::Complete(None)), Some(200), ""),
        (answer(200), Some(End::Dropped), Some(200), ""),
        (answer(302), None, Some(302), ""),
        (answer(404), Some(End::Dropped), Some(404), "404"),
        (answer(503), Some(End::Complete(None)), Some(503), "503"),
        (answer(200), Some(End::Failed), Some(200), "upstream_unavailable"),
        (answer(200), Some(End::Late), Some(200), "deadline_exceeded"),
        (refused(), Some(End::Complete(None)), None, "overloaded"),
        (refused(), Some(End::Dropped), None, "overloaded"),
        (None, None, None, "cancelled"),
    ] {
        let outcome = outcome_of(Role::Client(Protocol::Http), head, end).http_outcome();
        assert_eq!((outcome.status, &*outcome.error_type()), (status, error), "{end:?}");
    }
}

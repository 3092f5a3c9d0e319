//! Token cost of attempts.

use super::*;

/// Names the service whose failure the response reports.
fn from(answer: Answer, origin: &'static str) -> Answer {
    let mut answer = answer?;
    answer.headers_mut().insert(FAILURE_ORIGIN_HEADER, HeaderValue::from_static(origin));
    Ok(answer)
}

#[tokio::test(start_paused = true)]
async fn tokens_follow_server_health() {
    for (answer, tokens) in [
        ((|_| status(Code::Ok)) as fn(usize) -> Answer, 50.1),
        (|_| status(Code::NotFound), 50.1),
        (|_| status(Code::Internal), 50.0),
        (|_| status(Code::ResourceExhausted), 50.0),
        (|_| http(500, None), 50.0),
        (|_| Err(Rejection::new(&reasons::OVERLOADED, "")), 50.0),
        (|_| pushback(Code::ResourceExhausted, "5"), 50.0),
        (|_| from(status(Code::Unavailable), "search"), 50.0),
        (|_| from(status(Code::Unavailable), "products"), 49.0),
        (|_| status(Code::Unavailable), 49.0),
        (|_| pushback(Code::Internal, "-1"), 49.0),
    ] {
        let server = Server::answering(answer);
        for _ in 0..50 {
            server.layer.0.budget.spend();
        }
        server.attempts().await;
        assert!((server.tokens() - tokens).abs() < 1e-9, "{} after {:?}", server.tokens(), answer(1));
    }
}

#[tokio::test(start_paused = true)]
async fn response_without_status_is_final_but_no_success() {
    let server = Server::answering(|_| Ok(Response::new(Full::default())));
    server.layer.0.budget.spend();
    assert_eq!(server.attempts().await.0, 1);
    assert!((server.tokens() - 99.0).abs() < f64::EPSILON);
}

#[tokio::test(start_paused = true)]
async fn exhausted_budget_ends_retries_and_sets_pushback() {
    let server = Server::new(&Config { tokens: 4, ..Config::default() }, |_| status(Code::Unavailable));
    assert_eq!(server.attempts().await, (2, Code::Unavailable, Advice::Never));
    assert_eq!(server.attempts().await, (3, Code::Unavailable, Advice::Never));
}

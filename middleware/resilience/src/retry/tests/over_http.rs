//! Retries over HTTP.

use super::*;

type Answers = fn(usize) -> Answer;

fn request(method: &str) -> Request<Body> {
    Request::builder().method(method).uri("/keys").body(Body::new(Full::new(Bytes::from_static(b"message")))).unwrap()
}

/// Returns the number of attempts of a call and its final status.
async fn attempts(server: &Server, request: Request<Body>) -> (usize, Option<u16>) {
    let answer = server.call(request).await;
    (server.seen.lock().len(), answer.ok().map(|response| response.status().as_u16()))
}

#[tokio::test(start_paused = true)]
async fn http_method_decides_idempotency() {
    for (method, repeated) in [
        ("GET", true),
        ("HEAD", true),
        ("OPTIONS", true),
        ("TRACE", true),
        ("PUT", false),
        ("DELETE", false),
        ("POST", false),
        ("PATCH", false),
        ("CONNECT", false),
        ("BREW", false),
    ] {
        let server = Server::http(|_| http(503, None));
        assert_eq!(attempts(&server, request(method)).await, (if repeated { 3 } else { 1 }, Some(503)), "{method}");
    }
    let server = Server::http(|_| http(503, None));
    let mut keyed = request("POST");
    keyed.extensions_mut().insert(IdempotencyKeyed);
    assert_eq!(attempts(&server, keyed).await, (3, Some(503)));
}

#[tokio::test(start_paused = true)]
async fn http_status_decides_retry() {
    let cases: [(u16, bool, Answers); 12] = [
        (200, false, |_| http(200, None)),
        (204, false, |_| http(204, None)),
        (302, false, |_| http(302, None)),
        (304, false, |_| http(304, None)),
        (404, false, |_| http(404, None)),
        (408, true, |_| http(408, None)),
        (429, false, |_| http(429, None)),
        (500, false, |_| http(500, None)),
        (501, false, |_| http(501, None)),
        (502, true, |_| http(502, None)),
        (503, true, |_| http(503, None)),
        (504, true, |_| http(504, None)),
    ];
    for (status, repeated, answer) in cases {
        let server = Server::http(answer);
        assert_eq!(attempts(&server, request("GET")).await, (if repeated { 3 } else { 1 }, Some(status)), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_delays_the_next_attempt() {
    for (status, answer) in [(503, (|attempt| after(503, attempt)) as Answers), (429, |attempt| after(429, attempt))] {
        let server = Server::http(answer);
        assert_eq!(attempts(&server, request("GET")).await, (2, Some(200)), "{status}");
        assert_eq!(server.seen.lock()[1].after_ms, 2_000, "{status}");
    }
    let server = Server::http(|attempt| after(503, attempt));
    let mut hurried = request("GET");
    hurried.extensions_mut().insert(CallDeadline(TimeLimit::operator(Instant::now(), Duration::from_secs(2))));
    assert_eq!(attempts(&server, hurried).await, (1, Some(503)), "the real response now instead of a timeout later");
}

fn after(status: u16, attempt: usize) -> Answer {
    if attempt == 1 { http(status, Some("2")) } else { http(200, None) }
}

/// A foreign server may send these headers by chance; they have no meaning in HTTP.
#[tokio::test(start_paused = true)]
async fn grpc_headers_are_ignored_over_http() {
    let server = Server::http(|attempt| {
        let mut answer = http(if attempt == 1 { 503 } else { 200 }, None)?;
        answer.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
        answer.headers_mut().insert(PUSHBACK_HEADER, HeaderValue::from_static("-1"));
        Ok(answer)
    });
    let answer = server.call(request("GET")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key(FAILURE_ORIGIN_HEADER));
    let seen = server.seen.lock();
    assert_eq!((seen.len(), &seen[1].previous_attempts), (2, &None), "{seen:?}");
    assert!(seen.iter().all(|attempt| attempt.body == "message"));
}

#[tokio::test(start_paused = true)]
async fn http_response_is_unchanged_after_retries() {
    let answer = Server::http(|_| http(503, None)).call(request("GET")).await.unwrap();
    assert!(answer.headers().is_empty(), "{:?}", answer.headers());
}

#[tokio::test(start_paused = true)]
async fn unsent_request_is_resent_lost_only_if_idempotent() {
    for (method, unsent, expected) in [("POST", true, (2, Some(200))), ("POST", false, (1, None)), ("GET", false, (2, Some(200)))] {
        let answer: Answers = if unsent {
            |attempt| if attempt == 1 { connection_failure(true) } else { http(200, None) }
        } else {
            |attempt| if attempt == 1 { connection_failure(false) } else { http(200, None) }
        };
        let server = Server::http(answer);
        assert_eq!(attempts(&server, request(method)).await, expected, "{method}");
    }
    let lost = Server::http(|_| connection_failure(false)).call(request("GET")).await.unwrap_err();
    assert_eq!(lost.retry(), Advice::Never, "our caller must not retry after retries in vain");
}

/// The first frame of a body may be late; over HTTP it is not needed for the decision.
#[tokio::test(start_paused = true)]
async fn http_response_is_returned_at_its_head() {
    let hangs = service_fn(|_: Request<Body>| {
        let body = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Status>>());
        std::future::ready(Ok::<_, Rejection>(Response::new(body)))
    });
    let call = RetryLayer::http("idp", &Config::default()).layer(hangs).oneshot(request("GET"));
    assert!(call.now_or_never().expect("the call is ready at once").is_ok());
}

//! Which calls are retried, how often, and the resulting response.

use super::*;

#[tokio::test(start_paused = true)]
async fn retry_makes_three_attempts_and_sets_pushback() {
    let server = Server::answering(|_| status(Code::Unavailable));
    assert_eq!(server.attempts().await, (3, Code::Unavailable, Advice::Never));
    let seen = server.seen.lock();
    assert_eq!(seen.iter().map(|seen| seen.previous_attempts.clone()).collect::<Vec<_>>(), [None, Some(1.into()), Some(2.into())]);
    assert!(seen.iter().all(|seen| seen.body == "message"));
}

#[tokio::test(start_paused = true)]
async fn retry_stops_at_first_success() {
    let server = Server::answering(|attempt| status(if attempt == 1 { Code::Unavailable } else { Code::Ok }));
    assert_eq!(server.attempts().await, (2, Code::Ok, Advice::Unspecified));
    assert_eq!(Server::answering(|_| status(Code::Ok)).attempts().await, (1, Code::Ok, Advice::Unspecified));
}

#[tokio::test(start_paused = true)]
async fn only_transient_failures_are_retried() {
    for (answer, attempts) in [
        ((|_| status(Code::NotFound)) as fn(usize) -> Answer, 1),
        (|_| status(Code::Internal), 1),
        (|_| status(Code::Aborted), 1),
        (|_| status(Code::ResourceExhausted), 1),
        (|_| pushback(Code::ResourceExhausted, "5"), 3),
        (|_| status(Code::DeadlineExceeded), 3),
        (|_| Err(deadline::elapsed(Duration::from_secs(1))), 3),
        (|_| connection_failure(false), 3),
        (|_| http(502, None), 3),
        (|_| http(503, Some("1")), 3),
        (|_| http(504, None), 3),
        (|_| http(408, None), 3),
        (|_| http(500, None), 1),
        (|_| http(404, None), 1),
        (|_| http(429, None), 1),
        (|_| http(429, Some("1")), 3),
        (|_| Err(Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "circuit open: products")), 1),
        (|_| Err(Rejection::new(&reasons::OVERLOADED, "")), 1),
        (|_| Err(Rejection::internal("no key to sign with")), 1),
    ] {
        let server = Server::answering(answer);
        assert_eq!(server.attempts().await.0, attempts, "{:?}", answer(1));
    }
}

/// Losing one of three servers fails a third of all calls at once.
#[tokio::test(start_paused = true)]
async fn all_calls_of_a_lost_connection_are_retried() {
    const CALLS: usize = 40;
    let server = Server::answering(|attempt| if attempt <= CALLS { connection_failure(false) } else { status(Code::Ok) });
    let answers = futures_util::future::join_all((0..CALLS).map(|_| server.call(get()))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 0);
    assert_eq!(server.seen.lock().len(), 2 * CALLS);
}

#[tokio::test(start_paused = true)]
async fn non_idempotent_call_is_not_retried() {
    for answer in [(|_| connection_failure(false)) as fn(usize) -> Answer, |_| Err(deadline::elapsed(Duration::from_secs(1)))] {
        let server = Server::answering(answer);
        assert!(server.call(post()).await.is_err());
        assert_eq!(server.seen.lock().len(), 1);
    }
    let server = Server::answering(|_| status(Code::Unavailable));
    let answer = server.call(post()).await.unwrap();
    assert_eq!(server.seen.lock().len(), 1);
    assert_eq!(super::super::pushback::pushback(answer.headers()), Advice::Unspecified, "no retry was made, so our caller may retry");
}

#[tokio::test(start_paused = true)]
async fn call_with_idempotency_key_is_retried() {
    let server = Server::answering(|_| status(Code::Unavailable));
    let mut request = post();
    request.extensions_mut().insert(IdempotencyKeyed);
    server.call(request).await.unwrap();
    assert_eq!(server.seen.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn unsent_request_gets_one_transparent_retry() {
    for request in [get, post] {
        let server = Server::answering(|attempt| if attempt == 1 { connection_failure(true) } else { status(Code::Ok) });
        server.call(request()).await.unwrap();
        let seen = server.seen.lock().clone();
        assert_eq!((seen.len(), seen[1].after_ms, &seen[1].previous_attempts), (2, 0, &None));
        assert!((server.tokens() - 100.0).abs() < f64::EPSILON);

        let server = Server::answering(|_| connection_failure(true));
        let refusal = server.call(request()).await.unwrap_err();
        assert_eq!(refusal.retry(), Advice::Never);
        let previous: Vec<_> = server.seen.lock().iter().map(|seen| seen.previous_attempts.clone()).collect();
        assert_eq!(previous, [None, None, Some(1.into()), Some(2.into())], "three attempts, the first one sent twice");
        assert!((server.tokens() - 97.0).abs() < f64::EPSILON);
    }
}

#[tokio::test(start_paused = true)]
async fn call_retried_by_caller_is_not_retried() {
    let server = Server::answering(|_| status(Code::Unavailable));
    let mut context = RequestContext::background();
    context.previous_attempts = 1;
    assert_eq!(context::scope(context, server.attempts()).await, (1, Code::Unavailable, Advice::Unspecified));
}

#[tokio::test(start_paused = true)]
async fn opened_breaker_ends_retries_with_last_failure() {
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let fails = service_fn(move |_: Request<Body>| {
        *counted.lock() += 1;
        std::future::ready(status(Code::Unavailable))
    });
    let config = circuit_breaker::Config { min_calls: 3, ..circuit_breaker::Config::default() };
    let breaker = CircuitBreakerLayer::new("products", &config);
    let config = Config { max_attempts: 5, base_ms: 1, max_ms: 1, ..Config::default() };
    let service = BoxCloneService::new(breaker.layer(fails));
    let start = Instant::now();
    let answer = RetryLayer::new("products", &config, [PATH].into_iter().collect()).layer(service).call(get()).await.unwrap();
    assert_eq!((crate::grpc_status::from_headers(answer.headers()), *calls.lock()), (Some(Code::Unavailable), 3));
    assert_eq!(
        super::super::pushback::pushback(answer.headers()),
        Advice::Never,
        "three attempts were made in vain, whatever the breaker reports"
    );
    assert_eq!(answer.headers()[FAILURE_ORIGIN_HEADER], "products");
    assert!(start.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn failure_origin_names_target_unless_set() {
    let origin = async |answer, request: Request<Body>| match Server::answering(answer).call(request).await {
        Ok(response) => response.headers().get(FAILURE_ORIGIN_HEADER).cloned(),
        Err(rejection) => Status::from(rejection).metadata().as_ref().get(FAILURE_ORIGIN_HEADER).cloned(),
    };
    for (answer, named) in [
        ((|_| status(Code::Unavailable)) as fn(usize) -> Answer, Some("products")),
        (|_| status(Code::Internal), Some("products")),
        (|_| connection_failure(false), Some("products")),
        (|_| Err(deadline::elapsed(Duration::from_secs(1))), Some("products")),
        (|_| Err(Rejection::internal("no key to sign with")), None),
        (|_| status(Code::NotFound), None),
        (|_| status(Code::Ok), None),
        (|_| Err(Rejection::new(&reasons::UPSTREAM_UNAVAILABLE, "circuit open: products")), Some("dependency")),
    ] {
        for request in [get, post] {
            assert_eq!(origin(answer, request()).await, named.map(HeaderValue::from_static), "{:?}", answer(1));
        }
    }
    let passed_on: fn(usize) -> Answer = |_| {
        let mut answer = status(Code::Unavailable)?;
        answer.headers_mut().insert(FAILURE_ORIGIN_HEADER, HeaderValue::from_static("stock"));
        Ok(answer)
    };
    assert_eq!(origin(passed_on, get()).await, Some(HeaderValue::from_static("stock")));
}

#[tokio::test(start_paused = true)]
async fn streaming_request_is_not_retried() {
    let server = Server::answering(|_| status(Code::Unavailable));
    let mut waited = false;
    let slow = futures_util::stream::poll_fn(move |cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::<Option<Result<Frame<Bytes>, Status>>>::Pending
    });
    server.call(get().map(|_| Body::new(StreamBody::new(slow)))).await.unwrap();
    assert_eq!(server.seen.lock().len(), 1);
}

/// Returns the number of calls to a server that responds OK with these frames.
async fn calls_for_body(frames: fn() -> Vec<Result<Frame<Bytes>, Status>>) -> usize {
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let service = BoxCloneService::new(service_fn(move |_: Request<Body>| {
        *counted.lock() += 1;
        std::future::ready(Ok::<_, Rejection>(Response::new(StreamBody::new(futures_util::stream::iter(frames())))))
    }));
    let layer = RetryLayer::new("products", &Config::default(), [PATH].into_iter().collect());
    let _ = layer.layer(service).call(get()).await.unwrap().into_body().collect().await;
    *calls.lock()
}

fn unavailable() -> HeaderMap {
    Status::unavailable("").into_http::<()>().into_parts().0.headers
}

#[tokio::test(start_paused = true)]
async fn response_with_data_is_final_once_complete() {
    assert_eq!(calls_for_body(|| vec![Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(unavailable()))]).await, 1);
    assert_eq!(calls_for_body(|| vec![Ok(Frame::trailers(unavailable()))]).await, 3);
    assert_eq!(calls_for_body(|| vec![Err(Status::unknown("reset"))]).await, 3);
    assert_eq!(calls_for_body(|| vec![Ok(Frame::data(Bytes::from_static(b"x"))), Err(Status::unknown("reset"))]).await, 3);
}

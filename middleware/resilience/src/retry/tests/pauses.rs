//! Backoff, pushback and deadline between attempts.

use super::*;

#[tokio::test(start_paused = true)]
async fn pushback_sets_the_delay() {
    let server = Server::answering(|attempt| match attempt {
        1 => pushback(Code::Unavailable, "250"),
        _ => status(Code::Unavailable),
    });
    server.attempts().await;
    let after: Vec<u128> = server.seen.lock().iter().map(|seen| seen.after_ms).collect();
    assert_eq!(after[1], 250);
    assert!(after[2] <= 301, "the backoff restarts at 50 ms or less: {after:?}");
}

#[tokio::test(start_paused = true)]
async fn negative_or_invalid_pushback_forbids_retry() {
    for answer in [
        (|_| pushback(Code::Unavailable, "-1")) as fn(usize) -> Answer,
        |_| pushback(Code::Unavailable, "abc"),
        |_| pushback(Code::Unavailable, ""),
    ] {
        assert_eq!(Server::answering(answer).attempts().await.0, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_proxy_sets_the_delay() {
    let server = Server::answering(|attempt| if attempt == 1 { http(503, Some("7")) } else { status(Code::Ok) });
    assert_eq!(server.attempts().await.0, 2);
    assert_eq!(server.seen.lock()[1].after_ms, 7_000);
}

#[tokio::test(start_paused = true)]
async fn cancellation_during_backoff_ends_the_call() {
    let server = Server::answering(|_| pushback(Code::Unavailable, "5000"));
    let budget = server.layer.0.budget.clone();
    let call = tokio::time::timeout(Duration::from_secs(1), server.call(get()));
    assert!(call.await.is_err());
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(server.seen.lock().len(), 1);
    assert_eq!(budget.in_flight(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_retry_past_the_deadline() {
    let server = Server::answering(|_| pushback(Code::Unavailable, "5000"));
    let mut request = get();
    request.extensions_mut().insert(CallDeadline(TimeLimit::operator(Instant::now(), Duration::from_secs(5))));
    let start = Instant::now();
    let answer = server.call(request).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(answer.headers()["grpc-status"], "14", "the real error, not a timeout");
}

#[tokio::test(start_paused = true)]
async fn attempt_timeout_leaves_time_for_retries() {
    let attempts = Arc::new(Mutex::new(0));
    let counted = attempts.clone();
    let hangs = service_fn(move |_: Request<Body>| {
        *counted.lock() += 1;
        std::future::pending::<Answer>()
    });
    let inner = deadline::AttemptTimeoutLayer::new("products", Duration::from_millis(100)).layer(hangs);
    let layer = RetryLayer::new("products", &Config { max_attempts: 5, base_ms: 1, ..Config::default() }, [PATH].into_iter().collect());
    let mut request = get();
    let start = Instant::now();
    request.extensions_mut().insert(CallDeadline(TimeLimit::operator(start, Duration::from_millis(500))));
    let refusal = layer.layer(inner).call(request).await.unwrap_err();
    assert_eq!(refusal.reason(), &reasons::DEADLINE_EXCEEDED);
    assert!(*attempts.lock() >= 3);
    assert!(start.elapsed() <= Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn expiry_of_a_callers_time_costs_no_token() {
    let second = Duration::from_secs(1);
    for (chosen_by, tokens) in [(LimitOrigin::Caller, 10.0), (LimitOrigin::Operator, 7.0)] {
        let hangs = service_fn(|_: Request<Body>| std::future::pending::<Answer>());
        let inner = deadline::AttemptTimeoutLayer::new("products", 5 * second).layer(hangs);
        let layer = RetryLayer::new("products", &Config { tokens: 10, ..Config::default() }, [PATH].into_iter().collect());
        for _ in 0..3 {
            let mut request = get();
            let limit = match chosen_by {
                LimitOrigin::Caller => TimeLimit::caller(Instant::now(), second, 9 * second),
                LimitOrigin::Operator => TimeLimit::operator(Instant::now(), second),
            };
            request.extensions_mut().insert(CallDeadline(limit));
            let refusal = layer.layer(inner.clone()).call(request).await.unwrap_err();
            assert_eq!((refusal.reason(), refusal.is_due_to_caller()), (&reasons::DEADLINE_EXCEEDED, chosen_by == LimitOrigin::Caller));
        }
        assert!((layer.0.budget.tokens() - tokens).abs() < f64::EPSILON, "{chosen_by:?}: {}", layer.0.budget.tokens());
    }
}

#[tokio::test(start_paused = true)]
async fn retry_does_not_wait_for_readiness() {
    let layer = RetryLayer::new("products", &Config::default(), [PATH].into_iter().collect());
    let (mock, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Full<Bytes>>>();
    handle.allow(1);
    let inner = BoxCloneService::new(mock.map_err(|error| Rejection::internal(error.to_string())));
    let mut retry = layer.layer(inner);
    let call = crate::task::spawn(async move { retry.ready().await?.call(get()).await });
    let (_, respond) = handle.next_request().await.unwrap();
    respond.send_response(status(Code::Unavailable).unwrap());
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(super::super::pushback::pushback(answer.headers()), Advice::Unspecified, "only one attempt was made");
}

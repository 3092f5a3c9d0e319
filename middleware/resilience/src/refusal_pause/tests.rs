use tower::{ServiceExt, service_fn};

use super::*;

const WAIT: Duration = Duration::from_secs(1);

/// Returns how long each of ten requests in a row on one connection takes.
async fn durations<F>(answer: impl Fn() -> F + Clone) -> Vec<Duration>
where
    F: Future<Output = Result<Response<()>, Rejection>>,
{
    let layer = RefusalPauseLayer::new(Protocol::Http);
    let service = layer.layer(service_fn(move |_: Request<()>| answer()));
    let connection = ConnectionRefusals::default();
    let mut took = Vec::new();
    for _ in 0..10 {
        let request = Request::builder().extension(connection.clone()).body(()).unwrap();
        let started = Instant::now();
        let _ = service.clone().oneshot(request).await;
        took.push(started.elapsed());
    }
    assert_eq!(layer.held_back.get(), 0);
    took
}

#[tokio::test(start_paused = true)]
async fn repeated_rejections_are_held_back() {
    let overloaded = async || Err(Rejection::new(&reasons::OVERLOADED, "busy").with_retry_after(WAIT));
    let in_response = async || {
        let mut response = Response::new(());
        let rejection = Rejection::new(&reasons::RATE_LIMITED, "busy").with_retry_after(WAIT);
        response.extensions_mut().insert(RejectionExtension(Arc::new(rejection)));
        Ok(response)
    };
    for took in [durations(overloaded).await, durations(in_response).await] {
        assert!(took[..4].iter().all(Duration::is_zero), "{took:?}");
        assert!(took[4..].iter().all(|took| *took >= WAIT), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_responses_are_answered_at_once() {
    let served = async || Ok(Response::new(()));
    let not_found = async || Err(Rejection::new(&reasons::NOT_FOUND, "no such thing"));
    assert!(durations(served).await.iter().all(Duration::is_zero));
    assert!(durations(not_found).await.iter().all(Duration::is_zero));
}

#[tokio::test(start_paused = true)]
async fn held_back_rejection_holds_no_permit_and_is_counted() {
    let permit = Arc::new(());
    let held = permit.clone();
    let layer = RefusalPauseLayer::new(Protocol::Http);
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let permit = held.clone();
        async move {
            drop(permit);
            Err::<Response<()>, _>(Rejection::new(&reasons::OVERLOADED, "busy").with_retry_after(WAIT))
        }
    }));
    let connection = ConnectionRefusals::default();
    let request = || Request::builder().extension(connection.clone()).body(()).unwrap();
    for _ in 0..4 {
        let _ = service.clone().oneshot(request()).await;
    }
    let mut held_back = Box::pin(service.clone().oneshot(request()));
    assert!(futures_util::poll!(&mut held_back).is_pending());
    // The test's, and the service's.
    assert_eq!((Arc::strong_count(&permit), layer.held_back.get()), (2, 1));
    drop(held_back);
    assert_eq!(layer.held_back.get(), 0);
    // Without the extension there is no pause.
    assert!(futures_util::poll!(Box::pin(service.oneshot(Request::new(())))).is_ready());
}

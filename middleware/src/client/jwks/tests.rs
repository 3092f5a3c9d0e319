use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ::http::{StatusCode, header};
use axum::{Router, response::IntoResponse, routing::get};
use time::macros::datetime;
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};

use palisade_auth::{
    Issuer, UserToken, Verifier,
    jwks::{JwksSource, MAX_AGE, MIN_FIRST_REFRESH, MIN_REFRESH},
    keys::SigningKey,
    mint_user_token,
};
use palisade_resilience::{
    clock::ManualClock,
    context::{self, Context},
    rejection::{Reason, reasons},
    task,
};

use super::*;

const NOW: time::OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

/// JWKS server with a configurable response.
#[derive(Clone)]
struct JwksServer {
    url: reqwest::Url,
    response: Arc<parking_lot::Mutex<(StatusCode, String)>>,
    /// Each response takes a permit.
    permits: Arc<Semaphore>,
    hits: Arc<AtomicUsize>,
    /// Number of responses that are 503 with `retry-after: retry_after_seconds`.
    unavailable_responses: Arc<AtomicUsize>,
    retry_after_seconds: Arc<AtomicUsize>,
}

impl JwksServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        let answers = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let publisher = Self {
            url,
            response: Arc::default(),
            permits: answers,
            hits: Arc::default(),
            unavailable_responses: Arc::default(),
            retry_after_seconds: Arc::default(),
        };
        let state = publisher.clone();
        let keys = get(async move || {
            state.hits.fetch_add(1, Ordering::SeqCst);
            state.permits.acquire().await.unwrap().forget();
            if state.unavailable_responses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return (
                    StatusCode::SERVICE_UNAVAILABLE,
                    [(header::RETRY_AFTER, state.retry_after_seconds.load(Ordering::SeqCst).to_string())],
                    String::new(),
                )
                    .into_response();
            }
            let (status, body) = state.response.lock().clone();
            (status, [(header::LOCATION, "/elsewhere")], body).into_response()
        });
        let elsewhere = publisher.clone();
        let elsewhere = get(async move || elsewhere.response.lock().1.clone());
        let router = Router::new().route("/keys", keys).route("/elsewhere", elsewhere);
        drop(task::spawn(async move { axum::serve(listener, router).await }));
        publisher
    }

    fn set_response(&self, status: StatusCode, body: impl Into<String>) {
        *self.response.lock() = (status, body.into());
    }

    fn publish(&self, key: &SigningKey) {
        self.set_response(StatusCode::OK, jwks_json(key));
    }

    fn respond_unavailable(&self, times: usize, stay_away_seconds: usize) {
        self.unavailable_responses.store(times, Ordering::SeqCst);
        self.retry_after_seconds.store(stay_away_seconds, Ordering::SeqCst);
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    fn verifier(&self) -> Arc<Verifier> {
        let keys = JwksSource::from_url("idp", &self.url, connect).unwrap();
        let issuer = Issuer::of_users("idp", "palisade", keys);
        Arc::new(Verifier::new(vec![issuer], Arc::new(ManualClock::new(NOW))).unwrap())
    }
}

fn jwks_json(key: &SigningKey) -> String {
    serde_json::to_string(&key.public_jwks()).unwrap()
}

fn fresh_key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
}

/// Signs a unique token.
fn token(key: &SigningKey) -> String {
    let token = UserToken {
        subject: "alice".to_owned(),
        scope: String::new(),
        issuer: "idp".to_owned(),
        audience: "palisade".to_owned(),
        lifetime: Duration::from_hours(1),
    };
    mint_user_token(&token, key, NOW.unix_timestamp()).unwrap()
}

async fn rejection_reason(verifier: &Arc<Verifier>, key: &SigningKey) -> &'static Reason {
    verifier.verify(&token(key)).await.unwrap_err().reason()
}

/// Advances the paused clock, then resumes it, because socket I/O needs real time.
async fn advance(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn concurrent_callers_share_one_refresh() {
    let publisher = JwksServer::start().await;
    let key = fresh_key();
    publisher.publish(&key);
    let verifier = publisher.verifier();
    let tokens: Vec<_> = (0..20).map(|_| token(&key)).collect();
    let answers = futures_util::future::join_all(tokens.iter().map(|token| verifier.verify(token))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(publisher.hits(), 1);
}

#[tokio::test]
async fn unknown_keys_cause_one_refresh_per_interval() {
    let publisher = JwksServer::start().await;
    let (key, rotated) = (fresh_key(), fresh_key());
    publisher.publish(&key);
    let verifier = publisher.verifier();
    verifier.verify(&token(&key)).await.unwrap();
    for _ in 0..100 {
        assert_eq!(rejection_reason(&verifier, &fresh_key()).await, &reasons::UNAUTHENTICATED);
    }
    assert_eq!(publisher.hits(), 1, "a recent set is not refreshed");
    publisher.publish(&rotated);
    advance(MIN_REFRESH).await;
    verifier.verify(&token(&rotated)).await.expect("a new key after one refresh");
    for _ in 0..100 {
        assert_eq!(rejection_reason(&verifier, &fresh_key()).await, &reasons::UNAUTHENTICATED);
    }
    assert_eq!(publisher.hits(), 2);
}

#[tokio::test]
async fn refresh_survives_cancelled_caller() {
    let publisher = JwksServer::start().await;
    let key = fresh_key();
    publisher.publish(&key);
    publisher.permits.forget_permits(usize::MAX);
    let verifier = publisher.verifier();
    let impatient = task::spawn({
        let (verifier, token) = (verifier.clone(), token(&key));
        async move { verifier.verify(&token).await }
    });
    while publisher.hits() == 0 {
        tokio::task::yield_now().await;
    }
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());
    publisher.permits.add_permits(1);
    verifier.verify(&token(&key)).await.expect("the refresh started by the aborted caller");
    assert_eq!(publisher.hits(), 1);
}

#[tokio::test]
async fn failed_refresh_keeps_old_keys() {
    let publisher = JwksServer::start().await;
    let (key, rotated) = (fresh_key(), fresh_key());
    publisher.publish(&key);
    let verifier = publisher.verifier();
    verifier.verify(&token(&key)).await.unwrap();
    let bad = [
        (StatusCode::INTERNAL_SERVER_ERROR, jwks_json(&rotated)),
        (StatusCode::FOUND, jwks_json(&rotated)),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, r#"{"keys":[]}"#.to_owned()),
        (StatusCode::OK, format!("{}{}", jwks_json(&rotated), " ".repeat(MAX_BYTES))),
    ];
    for (hits, (status, body)) in (2..).zip(bad) {
        publisher.set_response(status, body);
        advance(MIN_REFRESH).await;
        assert_eq!(rejection_reason(&verifier, &rotated).await, &reasons::UNAUTHENTICATED, "{status}");
        assert_eq!(publisher.hits(), hits);
        verifier.verify(&token(&key)).await.expect("the old key stays valid");
    }
}

#[tokio::test]
async fn withdrawn_key_rejected_after_max_age() {
    let publisher = JwksServer::start().await;
    let (key, rotated) = (fresh_key(), fresh_key());
    publisher.publish(&key);
    let verifier = publisher.verifier();
    let cached = token(&key);
    verifier.verify(&cached).await.unwrap();
    publisher.publish(&rotated);
    advance(MAX_AGE + Duration::from_secs(1)).await;
    // Still accepted; starts a refresh in the background.
    verifier.verify(&token(&key)).await.unwrap();
    while verifier.verify(&cached).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(publisher.hits(), 2);
}

#[tokio::test]
async fn failed_fetch_is_retried() {
    let publisher = JwksServer::start().await;
    let key = fresh_key();
    publisher.publish(&key);
    publisher.respond_unavailable(2, 0);
    publisher.verifier().verify(&token(&key)).await.expect("the third attempt");
    assert_eq!(publisher.hits(), 3);
}

#[tokio::test]
async fn refresh_ignores_caller_deadline() {
    let publisher = JwksServer::start().await;
    let key = fresh_key();
    publisher.publish(&key);
    let (verifier, token) = (publisher.verifier(), token(&key));
    context::scope(Context::background().with_deadline(Instant::now()), verifier.verify(&token)).await.expect("the JWKS is refreshed");
}

/// Without a key every request is rejected: the breaker may save attempts, but must not prevent a
/// refresh.
#[tokio::test]
async fn missing_set_fetched_every_second_despite_breaker() {
    for stay_away in [0, 30] {
        let publisher = JwksServer::start().await;
        let key = fresh_key();
        publisher.publish(&key);
        publisher.respond_unavailable(usize::MAX, stay_away);
        let verifier = publisher.verifier();
        for read in 1..=8 {
            let before = publisher.hits();
            assert_eq!(rejection_reason(&verifier, &key).await, &reasons::UPSTREAM_UNAVAILABLE);
            let attempts = publisher.hits() - before;
            assert!((1..=3).contains(&attempts), "refresh {read}: {attempts} attempts");
            assert!(read <= 2 || attempts == 1, "refresh {read}: {attempts} attempts in spite of the breaker");
            advance(MIN_FIRST_REFRESH).await;
        }
        publisher.respond_unavailable(0, 0);
        verifier.verify(&token(&key)).await.expect("the issuer has recovered");
    }
}

/// The paused clock jumps to the timeout, because no other event is pending.
#[tokio::test(start_paused = true)]
async fn missing_set_rejects_as_unavailable_and_retries() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
    let keys = JwksSource::from_url("idp", &url, connect).unwrap();
    let issuer = Issuer::of_users("idp", "palisade", keys);
    let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(ManualClock::new(NOW))).unwrap());
    let started = Instant::now();
    let silent = verifier.verify(&token(&fresh_key())).await.unwrap_err();
    assert_eq!(silent.reason(), &reasons::UPSTREAM_UNAVAILABLE);
    assert!(started.elapsed() <= FETCH_TIMEOUT + Duration::from_millis(10), "{:?}", started.elapsed());
    assert_eq!(silent.retry(), palisade_resilience::rejection::Retry::After(Duration::from_secs(1)));
    for read in 2..=8 {
        let started = Instant::now();
        verifier.verify(&token(&fresh_key())).await.unwrap_err();
        assert!(
            started.elapsed() + Duration::from_millis(10) >= FETCH_TIMEOUT,
            "refresh {read} was not attempted: {:?}",
            started.elapsed()
        );
    }
}

use std::sync::atomic::AtomicUsize;

use axum::{Router, response::IntoResponse, routing::get};
use http::{StatusCode, header};
use time::macros::datetime;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    remote::{FETCH_TIMEOUT, MAX_BYTES},
    *,
};
use crate::{
    auth::{Issuer, UserToken, Verifier, keys::SigningKey, mint_user_token},
    clock::ManualClock,
    rejection::{Reason, reasons},
    task,
};

const NOW: time::OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

/// An address that publishes keys, as they are told to.
#[derive(Clone)]
struct JwksServer {
    url: reqwest::Url,
    response: Arc<parking_lot::Mutex<(StatusCode, String)>>,
    /// Each answer takes one.
    permits: Arc<Semaphore>,
    hits: Arc<AtomicUsize>,
    /// So many answers are a 503 that asks to stay away for so many seconds.
    unavailable_responses: Arc<AtomicUsize>,
    retry_after_seconds: Arc<AtomicUsize>,
}

impl JwksServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        let answers = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let publisher =
            Self { url, response: Arc::default(), permits: answers, hits: Arc::default(), unavailable_responses: Arc::default(), retry_after_seconds: Arc::default() };
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
        let keys = JwksSource::from_url("idp", &self.url).unwrap();
        let issuer = Issuer::of_users("idp", "palisade", keys);
        Arc::new(Verifier::new(vec![issuer], Arc::new(ManualClock::new(NOW))))
    }
}

fn jwks_json(key: &SigningKey) -> String {
    serde_json::to_string(&key.public_jwks()).unwrap()
}

fn fresh_key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
}

/// No two are alike.
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

/// Time goes by with a stopped clock, and then runs again: sockets do not know of ours.
async fn advance(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn whoever_comes_at_once_shares_one_read() {
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
async fn a_flood_of_unknown_keys_is_one_read_in_half_a_minute() {
    let publisher = JwksServer::start().await;
    let (key, rotated) = (fresh_key(), fresh_key());
    publisher.publish(&key);
    let verifier = publisher.verifier();
    verifier.verify(&token(&key)).await.unwrap();
    for _ in 0..100 {
        assert_eq!(rejection_reason(&verifier, &fresh_key()).await, &reasons::UNAUTHENTICATED);
    }
    assert_eq!(publisher.hits(), 1, "what was read a moment ago is not read again");
    publisher.publish(&rotated);
    advance(MIN_REFRESH).await;
    verifier.verify(&token(&rotated)).await.expect("a new key within one read");
    for _ in 0..100 {
        assert_eq!(rejection_reason(&verifier, &fresh_key()).await, &reasons::UNAUTHENTICATED);
    }
    assert_eq!(publisher.hits(), 2);
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_take_the_read_with_him() {
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
    verifier.verify(&token(&key)).await.expect("the read that he began");
    assert_eq!(publisher.hits(), 1);
}

#[tokio::test]
async fn old_keys_stay_whatever_the_address_answers() {
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
        verifier.verify(&token(&key)).await.expect("an old key");
    }
}

#[tokio::test]
async fn a_withdrawn_key_is_gone_once_the_set_is_old_though_every_token_names_it() {
    let publisher = JwksServer::start().await;
    let (key, rotated) = (fresh_key(), fresh_key());
    publisher.publish(&key);
    let verifier = publisher.verifier();
    let cached = token(&key);
    verifier.verify(&cached).await.unwrap();
    publisher.publish(&rotated);
    advance(MAX_AGE + Duration::from_secs(1)).await;
    // This one is still believed, and has the set read behind its back.
    verifier.verify(&token(&key)).await.unwrap();
    while verifier.verify(&cached).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(publisher.hits(), 2);
}

#[tokio::test]
async fn a_read_that_fails_is_tried_again_at_once() {
    let publisher = JwksServer::start().await;
    let key = fresh_key();
    publisher.publish(&key);
    publisher.respond_unavailable(2, 0);
    publisher.verifier().verify(&token(&key)).await.expect("the third attempt");
    assert_eq!(publisher.hits(), 3);
}

#[tokio::test]
async fn a_read_has_its_own_time_whoever_asks_for_it() {
    let publisher = JwksServer::start().await;
    let key = fresh_key();
    publisher.publish(&key);
    let (verifier, token) = (publisher.verifier(), token(&key));
    context::scope(Context::background().with_deadline(Instant::now()), verifier.verify(&token)).await.expect("the key set was read");
}

/// As long as there is no key nobody gets in: the breaker may spare the issuer attempts, but no read.
#[tokio::test]
async fn a_set_that_was_never_read_is_asked_for_each_second_though_the_issuer_is_unwell() {
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
            assert!((1..=3).contains(&attempts), "read {read}: {attempts} attempts");
            assert!(read <= 2 || attempts == 1, "read {read}: the breaker prevents {attempts} attempts");
            advance(MIN_FIRST_REFRESH).await;
        }
        publisher.respond_unavailable(0, 0);
        verifier.verify(&token(&key)).await.expect("the issuer is well again");
    }
}

/// The clock stands still here, so that it jumps to the timeout: nothing else can happen.
#[tokio::test(start_paused = true)]
async fn without_any_key_nothing_is_said_of_a_token_and_the_next_try_is_soon() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
    let keys = JwksSource::from_url("idp", &url).unwrap();
    let issuer = Issuer::of_users("idp", "palisade", keys);
    let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(ManualClock::new(NOW))));
    let started = Instant::now();
    let silent = verifier.verify(&token(&fresh_key())).await.unwrap_err();
    assert_eq!(silent.reason(), &reasons::UPSTREAM_UNAVAILABLE);
    assert!(started.elapsed() <= FETCH_TIMEOUT + Duration::from_millis(10), "{:?}", started.elapsed());
    assert_eq!(silent.retry(), crate::rejection::Retry::After(Duration::from_secs(1)));
    for read in 2..=8 {
        let started = Instant::now();
        verifier.verify(&token(&fresh_key())).await.unwrap_err();
        assert!(started.elapsed() + Duration::from_millis(10) >= FETCH_TIMEOUT, "read {read} was not made: {:?}", started.elapsed());
    }
}

use std::sync::atomic::AtomicUsize;

use futures_util::{FutureExt, future::join_all};

use super::*;
use crate::keys::SigningKey;

/// Client of an issuer that accepts connections and never answers, unless `keys` are set.
#[derive(Debug, Default)]
struct Issuer {
    fetches: AtomicUsize,
    keys: Mutex<Option<Vec<u8>>>,
}

#[derive(Debug)]
struct Client(Arc<Issuer>);

impl FetchJwks for Client {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, BoxError>> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        let keys = self.0.keys.lock().clone();
        async move {
            if let Some(keys) = keys {
                return Ok(keys);
            }
            tokio::time::sleep(FETCH_TIMEOUT).await;
            Err("timed out".into())
        }
        .boxed()
    }
}

fn hanging() -> (Arc<Issuer>, JwksSource) {
    let issuer = Arc::new(Issuer::default());
    (issuer.clone(), JwksSource::from_client(Box::new(Client(issuer))))
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn waiters_share_one_refresh_of_hanging_issuer() {
    let (issuer, keys) = hanging();
    let (before, started) = (alive_tasks(), Instant::now());
    let waiters = join_all((0..MAX_WAITERS).map(|_| keys.refresh()));
    let observer = async {
        while issuer.fetches.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(alive_tasks(), before + 1, "a waiter is no task");
        assert!(!keys.refresh().await, "more waiters are rejected at once");
        assert_eq!(started.elapsed(), Duration::ZERO);
    };
    let (outcomes, ()) = tokio::join!(waiters, observer);
    assert!(outcomes.into_iter().all(|waited| waited));
    assert_eq!((issuer.fetches.load(Ordering::SeqCst), started.elapsed()), (1, FETCH_TIMEOUT), "the outcome is shared");
    assert!(keys.may_refresh(), "the next request tries again");
}

#[tokio::test(start_paused = true)]
async fn aborted_waiter_does_not_stop_refresh() {
    let (issuer, keys) = hanging();
    assert!(tokio::time::timeout(FETCH_TIMEOUT / 2, keys.refresh()).await.is_err());
    let started = Instant::now();
    assert!(keys.refresh().await);
    assert_eq!((issuer.fetches.load(Ordering::SeqCst), started.elapsed()), (1, FETCH_TIMEOUT / 2));
    let signing = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
    *issuer.keys.lock() = Some(serde_json::to_vec(&signing.public_jwks()).unwrap());
    assert!(keys.refresh().await && keys.is_loaded());
    assert!(!keys.may_refresh(), "a loaded set is not refreshed again within {MIN_REFRESH:?}");
}

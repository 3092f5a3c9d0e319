//! Freshness, staleness, single flight and invalidation, on a paused clock.

use std::{
    future::{pending, ready},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::oneshot, time::advance};

use super::*;

const FRESH: Duration = Duration::from_secs(1);
const STALE: Duration = Duration::from_secs(10);
const SOFT_TIMEOUT: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(1);
const NEARLY_STALE: Duration = Duration::from_millis(999);
const NEARLY_EXPIRED: Duration = Duration::from_millis(10_999);

const ID: Uuid = Uuid::from_u128(7);
const PRODUCT: Key = Key::Product(ID);

const STORED: CacheStatus = forwarded(FwdReason::Miss, true, false);
const REVALIDATED: CacheStatus = forwarded(FwdReason::Stale, true, false);

/// A cache and the number of loads through it.
#[derive(Clone)]
struct Fixture {
    cache: Cache,
    loads: Arc<AtomicUsize>,
}

const fn forwarded(reason: FwdReason, stored: bool, collapsed: bool) -> CacheStatus {
    CacheStatus::Forwarded { reason, stored, collapsed }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn down() -> Status {
    Status::unavailable("products is down")
}

fn page() -> Key {
    Key::Page(Arc::default())
}

impl Fixture {
    fn new() -> Self {
        let config = Config { ttl_ms: millis(FRESH), stale_ms: millis(STALE), soft_timeout_ms: millis(SOFT_TIMEOUT), ..Config::default() };
        Self { cache: Cache::new(&config).unwrap().0, loads: Arc::default() }
    }

    fn store(&self) -> &Store {
        self.cache.0.as_ref().unwrap()
    }

    fn load_count(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }

    /// Reads `key` while products returns a version. Returns the version and its cache status.
    async fn read_as<F>(&self, key: Key, no_cache: bool, response: F) -> Result<(i64, CacheStatus), Status>
    where
        F: Future<Output = Result<i64, Status>> + Send + 'static,
    {
        let loads = self.loads.clone();
        let load = async move {
            loads.fetch_add(1, Ordering::Relaxed);
            let version = response.await?;
            Ok(Representation { body: version.to_string().into(), version: Some(version) })
        };
        match self.cache.read(key, NoCache(no_cache), load).await? {
            CacheResult::Cached { entry, status, .. } => Ok((entry.representation.version.unwrap(), status)),
            CacheResult::Uncached(_) => panic!("the cache is enabled"),
        }
    }

    async fn read(&self, response: impl Future<Output = Result<i64, Status>> + Send + 'static) -> Result<(i64, CacheStatus), Status> {
        self.read_as(PRODUCT, false, response).await
    }

    /// Reads the product while products returns this version.
    async fn read_version(&self, version: i64) -> (i64, CacheStatus) {
        self.read(ready(Ok(version))).await.unwrap()
    }

    async fn read_while_down(&self) -> Result<(i64, CacheStatus), Code> {
        self.read(ready(Err(down()))).await.map_err(|status| status.code())
    }

    /// Writes with an unknown resulting version.
    async fn change(&self, product: Option<Uuid>) {
        let products: Vec<_> = product.into_iter().collect();
        self.cache.invalidate_after(products.clone(), ready(Ok((Changes::of_stock(products), ())))).await.unwrap();
    }

    fn receive_event(&self, version: i64) {
        self.store().invalidate(Some(ID), Version::Known(version), Cause::Event);
    }
}

#[tokio::test(start_paused = true)]
async fn entry_is_served_while_fresh() {
    let fixture = Fixture::new();
    assert_eq!(fixture.read_version(1).await, (1, STORED));
    advance(NEARLY_STALE).await;
    assert_eq!(fixture.read_version(2).await, (1, CacheStatus::Hit));
    advance(TICK).await;
    assert_eq!(fixture.read_version(2).await, (2, REVALIDATED));
    assert_eq!(fixture.load_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn stale_entry_is_served_on_error_until_expiry() {
    let fixture = Fixture::new();
    fixture.read_version(1).await;
    advance(NEARLY_EXPIRED).await;
    assert_eq!(fixture.read_while_down().await, Ok((1, CacheStatus::Stale(STALE_IF_ERROR))));
    advance(TICK).await;
    assert_eq!(fixture.read_while_down().await, Err(Code::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn definite_errors_are_not_replaced_by_stale() {
    let fixture = Fixture::new();
    fixture.read_version(1).await;
    advance(FRESH).await;
    for code in [Code::PermissionDenied, Code::InvalidArgument, Code::ResourceExhausted] {
        let result = fixture.read(ready(Err(Status::new(code, "rejected")))).await;
        assert_eq!(result.unwrap_err().code(), code);
    }
    assert_eq!(fixture.read(ready(Err(Status::not_found("removed")))).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(fixture.read_while_down().await, Err(Code::Unavailable), "the entry of a missing product is removed");
}

#[tokio::test(start_paused = true)]
async fn stale_entry_is_served_at_soft_timeout() {
    let fixture = Fixture::new();
    fixture.read_version(1).await;
    advance(FRESH).await;
    let (respond, response) = oneshot::channel();
    let started = Instant::now();
    assert_eq!(fixture.read(async { Ok(response.await.unwrap()) }).await.unwrap(), (1, CacheStatus::Stale(STALE_WHILE_REVALIDATE)));
    assert_eq!(started.elapsed(), SOFT_TIMEOUT);
    // The soft timeout counts from the start of the load, not from this caller.
    assert_eq!(fixture.read(pending()).await.unwrap(), (1, CacheStatus::Stale(STALE_WHILE_REVALIDATE)));
    assert_eq!((started.elapsed(), fixture.load_count()), (SOFT_TIMEOUT, 2));
    respond.send(2).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(fixture.read(pending()).await.unwrap(), (2, CacheStatus::Hit));
}

#[tokio::test(start_paused = true)]
async fn single_flight_outlives_its_first_caller() {
    let fixture = Fixture::new();
    let (respond, response) = oneshot::channel();
    let mut first = Box::pin(fixture.read(async { Ok(response.await.unwrap()) }));
    assert!(futures_util::poll!(&mut first).is_pending());
    let others: Vec<_> = (0..10)
        .map(|_| {
            let fixture = fixture.clone();
            task::spawn(async move { fixture.read(pending()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(first);
    respond.send(1).unwrap();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), (1, forwarded(FwdReason::Miss, true, true)));
    }
    assert_eq!(fixture.load_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn panicking_load_fails_waiters() {
    let fixture = Fixture::new();
    let result = fixture.read(async { panic!("a bug") }).await;
    assert_eq!(result.unwrap_err().code(), Code::Internal);
    assert_eq!(fixture.read_version(1).await, (1, STORED));
}

#[tokio::test(start_paused = true)]
async fn event_invalidates_only_older_versions() {
    let fixture = Fixture::new();
    fixture.read_version(2).await;
    fixture.store().invalidate(Some(Uuid::from_u128(8)), Version::Known(3), Cause::Event);
    fixture.receive_event(2);
    assert_eq!(fixture.read_version(3).await, (2, CacheStatus::Hit));
    fixture.receive_event(3);
    assert_eq!(fixture.read_while_down().await, Ok((2, CacheStatus::Stale(STALE_IF_ERROR))));
    assert_eq!(fixture.read_version(3).await, (3, REVALIDATED));
}

#[tokio::test(start_paused = true)]
async fn invalidated_entry_ignores_soft_timeout() {
    let fixture = Fixture::new();
    fixture.read_version(1).await;
    fixture.receive_event(2);
    let slow = async {
        tokio::time::sleep(SOFT_TIMEOUT * 4).await;
        Ok(2)
    };
    assert_eq!(fixture.read(slow).await.unwrap(), (2, REVALIDATED));
}

#[tokio::test(start_paused = true)]
async fn removed_product_is_never_served_stale() {
    let fixture = Fixture::new();
    fixture.read_version(1).await;
    fixture.store().invalidate(Some(ID), Version::Removed, Cause::Event);
    assert_eq!(fixture.read_while_down().await, Err(Code::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn any_change_invalidates_all_pages() {
    let fixture = Fixture::new();
    let read = |version| fixture.read_as(page(), false, ready(Ok(version)));
    for (version, product) in [(1, None), (2, Some(Uuid::from_u128(8)))] {
        read(version).await.unwrap();
        assert_eq!(read(0).await.unwrap(), (version, CacheStatus::Hit));
        fixture.change(product).await;
    }
    assert_eq!(read(3).await.unwrap(), (3, REVALIDATED));
}

#[tokio::test(start_paused = true)]
async fn missed_events_invalidate_everything() {
    let fixture = Fixture::new();
    fixture.read_version(1).await;
    fixture.read_as(page(), false, ready(Ok(1))).await.unwrap();
    fixture.store().invalidate_all();
    assert_eq!(fixture.read_version(2).await, (2, REVALIDATED));
    assert_eq!(fixture.read_as(page(), false, ready(Ok(2))).await.unwrap(), (2, REVALIDATED));
}

#[tokio::test(start_paused = true)]
async fn load_invalidated_in_flight_is_not_stored() {
    let fixture = Fixture::new();
    let (respond, response) = oneshot::channel();
    let mut first = Box::pin(fixture.read(async { Ok(response.await.unwrap()) }));
    assert!(futures_util::poll!(&mut first).is_pending());
    fixture.change(Some(ID)).await;
    assert_eq!(fixture.read_version(2).await, (2, STORED), "a read after a change sees it");
    respond.send(1).unwrap();
    assert_eq!(first.await.unwrap(), (1, forwarded(FwdReason::Miss, false, false)));
    assert_eq!(fixture.read_version(3).await, (2, CacheStatus::Hit));
}

#[tokio::test(start_paused = true)]
async fn bypass_refreshes_the_entry() {
    let fixture = Fixture::new();
    let read = |response| fixture.read_as(PRODUCT, true, ready(response));
    fixture.read_version(1).await;
    assert_eq!(read(Ok(2)).await.unwrap(), (2, forwarded(FwdReason::Request, true, false)));
    assert_eq!(fixture.read_version(3).await, (2, CacheStatus::Hit));
    assert_eq!(read(Err(down())).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn bypass_does_not_displace_load_in_flight() {
    let fixture = Fixture::new();
    let (respond, response) = oneshot::channel();
    let mut first = Box::pin(fixture.read(async { Ok(response.await.unwrap()) }));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert_eq!(fixture.read_as(PRODUCT, true, ready(Ok(2))).await.unwrap(), (2, forwarded(FwdReason::Request, false, false)));
    respond.send(1).unwrap();
    assert_eq!(first.await.unwrap(), (1, STORED));
    assert_eq!(fixture.read_version(3).await, (1, CacheStatus::Hit));
}

#[tokio::test(start_paused = true)]
async fn caller_specific_error_is_not_shared() {
    let fixture = Fixture::new();
    let (reject, rejected) = oneshot::channel();
    let mut first = Box::pin(fixture.read(async {
        rejected.await.unwrap();
        Err(Status::resource_exhausted("quota exceeded"))
    }));
    assert!(futures_util::poll!(&mut first).is_pending());
    let loads = fixture.loads.clone();
    let other = fixture.cache.read(PRODUCT, NoCache(false), async move {
        loads.fetch_add(1, Ordering::Relaxed);
        Ok(Representation { body: "2".into(), version: Some(2) })
    });
    let mut other = Box::pin(other);
    assert!(futures_util::poll!(&mut other).is_pending());
    reject.send(()).unwrap();
    assert_eq!(first.await.unwrap_err().code(), Code::ResourceExhausted);
    let CacheResult::Uncached(loaded) = other.await.unwrap() else { panic!("expected an uncached result") };
    assert_eq!((loaded.version, fixture.load_count()), (Some(2), 2));
}

#[tokio::test(start_paused = true)]
async fn cancelled_write_invalidates_when_done() {
    let fixture = Fixture::new();
    let (commit, committed) = oneshot::channel();
    let mut write = Box::pin(fixture.cache.invalidate_after(vec![ID], async {
        committed.await.unwrap();
        Ok((Changes::of(ID, Version::Known(2)), ()))
    }));
    assert!(futures_util::poll!(&mut write).is_pending());
    drop(write);
    assert_eq!(fixture.read_version(1).await, (1, STORED));
    commit.send(()).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(fixture.read_version(2).await, (2, REVALIDATED));
}

#[tokio::test(start_paused = true)]
async fn short_deadline_shortens_soft_timeout() {
    let fixture = Fixture::new();
    fixture.read_version(1).await;
    advance(FRESH).await;
    let started = Instant::now();
    let context = Context::background().with_deadline(started + SOFT_TIMEOUT / 5);
    let result = context::scope(context, fixture.read(pending())).await;
    assert_eq!((result.unwrap(), started.elapsed()), ((1, CacheStatus::Stale(STALE_WHILE_REVALIDATE)), SOFT_TIMEOUT / 10));
}

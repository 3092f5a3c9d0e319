//! Response cache for reads of products: bounded, single flight, invalidated by change events, with
//! stale-if-error.
//!
//! The cache runs after authorization and stores only responses that are identical for every
//! authorized caller. It is disabled unless `cache.ttl_ms` is set. Errors, `NOT_FOUND` included,
//! are never cached: concurrent callers of the same key share one error, and the next request loads
//! again.

mod background;
mod config;
mod key;
mod redis;
mod response;
mod store;

use std::{future::Future, sync::Arc};

use palisade_middleware::{
    context::{self, Context},
    rejection::Rejection,
    setting::Invalid,
    task,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};
use uuid::Uuid;

use self::{
    response::{CacheResult, CacheStatus, FwdReason, STALE_IF_ERROR, STALE_WHILE_REVALIDATE},
    store::{Entry, LoadGuard, Loaded, Store},
};
use crate::metrics::{self, Cause, Lookup};

pub use background::CacheTasks;
pub use config::Config;
pub(crate) use key::{Key, Version};
pub(crate) use response::NoCache;
pub(crate) use store::Representation;

/// Response cache. Cheap to clone; clones share their entries. The default is disabled.
#[derive(Debug, Clone, Default)]
pub struct Cache(Option<Arc<Store>>);

/// Guard of a write: invalidates the entries of its products when dropped, whatever the outcome of
/// the write.
#[derive(Debug)]
struct InvalidateOnDrop {
    store: Arc<Store>,
    changes: Changes,
}

/// Products that a write changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The products. Empty for a new product.
    pub(crate) products: Vec<Uuid>,
    /// Their version after the write.
    pub(crate) new_version: Version,
}

impl Cache {
    /// Returns the cache for `config` and its background tasks. The tasks are `None` if the cache
    /// is disabled.
    pub fn new(config: &Config) -> Result<(Self, Option<CacheTasks>), Invalid> {
        if !config.is_enabled() {
            return Ok((Self::default(), None));
        }
        let (store, invalidations) = Store::new(config)?;
        let store = Arc::new(store);
        Ok((Self(Some(store.clone())), Some(CacheTasks::new(store, invalidations))))
    }

    /// Returns the cached response of `key`, or loads it with `load`, which calls products.
    /// `no_cache` bypasses cached entries.
    pub(crate) async fn read<L>(&self, key: Key, no_cache: NoCache, load: L) -> Result<CacheResult, Status>
    where
        L: Future<Output = Result<Representation, Status>> + Send + 'static,
    {
        match &self.0 {
            Some(store) => read(store, &key, no_cache, load).await,
            None => load.await.map(CacheResult::Uncached),
        }
    }

    /// Runs a write that may change `products`, and invalidates their entries and all pages
    /// afterwards. A successful write returns its changes.
    ///
    /// The write continues if the caller is cancelled: if the entry was invalidated before products
    /// commits the change, a concurrent read could cache the old product again.
    pub(crate) async fn invalidate_after<T: Send + 'static>(
        &self,
        products: Vec<Uuid>,
        write: impl Future<Output = Result<(Changes, T), Rejection>> + Send + 'static,
    ) -> Result<T, Rejection> {
        let Some(store) = &self.0 else { return Ok(write.await?.1) };
        let guard = InvalidateOnDrop { store: store.clone(), changes: Changes { products, new_version: Version::Unknown } };
        let guarded_write = async move {
            // Moves the whole guard into the future.
            let mut guard = guard;
            let (changes, response) = write.await?;
            guard.changes = changes;
            Ok(response)
        };
        task::run_to_completion(guarded_write).await
    }
}

impl Changes {
    /// Returns the change of one product to `new_version`.
    pub(crate) fn of(product: Uuid, new_version: Version) -> Self {
        Self { products: vec![product], new_version }
    }

    /// Returns the changes of the stock of `products`, whose versions are unknown.
    pub(crate) fn of_stock(products: impl IntoIterator<Item = Uuid>) -> Self {
        Self { products: products.into_iter().collect(), new_version: Version::Unknown }
    }
}

impl Drop for InvalidateOnDrop {
    fn drop(&mut self) {
        let Changes { products, new_version } = &self.changes;
        if products.is_empty() {
            self.store.invalidate(None, *new_version, Cause::Write);
        }
        for product in products {
            self.store.invalidate(Some(*product), *new_version, Cause::Write);
        }
    }
}

/// Reads through the cache: fresh entry, Redis, products, then stale-if-error.
async fn read<L>(store: &Arc<Store>, key: &Key, NoCache(no_cache): NoCache, load: L) -> Result<CacheResult, Status>
where
    L: Future<Output = Result<Representation, Status>> + Send + 'static,
{
    let existing = store.get(key).filter(|_| !no_cache);
    if let Some(entry) = existing.clone().filter(|entry| store.is_fresh(key, entry)) {
        return Ok(cached(store, Lookup::Hit, entry, CacheStatus::Hit));
    }
    let reason = match &existing {
        _ if no_cache => FwdReason::Request,
        Some(_) => FwdReason::Stale,
        None => FwdReason::Miss,
    };
    let (mut in_flight, guard) = store.loads.join(key, no_cache);
    let own_load = match guard {
        Some(guard) => {
            spawn_load(store, guard, no_cache, load);
            None
        }
        None => Some(load),
    };
    let collapsed = own_load.is_some();
    let result = match existing {
        Some(entry) if !store.is_invalidated(key, &entry) => {
            let Ok(result) = timeout_at(soft_timeout_at(store, in_flight.started), in_flight.result()).await else {
                return Ok(cached(store, Lookup::Stale, entry, CacheStatus::Stale(STALE_WHILE_REVALIDATE)));
            };
            result
        }
        // An invalidated entry is served only if the load fails.
        _ => in_flight.result().await,
    };
    let lookup = if no_cache { Lookup::Bypass } else { Lookup::Miss };
    match result.unwrap_or_else(|| Err(Status::internal("cache load ended without a result"))) {
        Ok(Loaded { entry, is_from_redis: true, .. }) => Ok(cached(store, Lookup::Shared, entry, CacheStatus::Shared)),
        Ok(Loaded { entry, is_stored, .. }) => {
            Ok(cached(store, lookup, entry, CacheStatus::Forwarded { reason, stored: is_stored, collapsed }))
        }
        Err(status) => {
            if let Some(entry) = store.get(key).filter(|_| !no_cache && allows_stale_if_error(&status)) {
                return Ok(cached(store, Lookup::Stale, entry, CacheStatus::Stale(STALE_IF_ERROR)));
            }
            metrics::lookups(lookup).increment(1);
            match own_load.filter(|_| is_caller_specific(&status)) {
                Some(load) => Ok(CacheResult::Uncached(load.await?)),
                None => Err(status),
            }
        }
    }
}

fn cached(store: &Store, lookup: Lookup, entry: Arc<Entry>, status: CacheStatus) -> CacheResult {
    metrics::lookups(lookup).increment(1);
    CacheResult::Cached { entry, status, ttl: store.ttl }
}

/// Whether a stale entry may replace this error (stale-if-error): products did not respond. A
/// definite error such as `NOT_FOUND` is a response and is returned.
fn allows_stale_if_error(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown | Code::Cancelled)
}

/// Whether this error concerns only the caller that started the load. Other waiting callers then
/// send their own request.
fn is_caller_specific(status: &Status) -> bool {
    matches!(status.code(), Code::ResourceExhausted | Code::PermissionDenied | Code::Unauthenticated)
}

/// Returns the time at which a stale entry is served: the soft timeout, or half of the caller's
/// remaining deadline if that is earlier.
fn soft_timeout_at(store: &Store, started: Instant) -> Instant {
    let soft_deadline = started + store.soft_timeout;
    let now = Instant::now();
    let deadline = context::current().and_then(|context| context.deadline);
    deadline.map_or(soft_deadline, |limit| soft_deadline.min(now + limit.remaining(now) / 2))
}

/// Runs a load independently of the waiting callers: with the identity of the first one, but
/// without its deadline and its attempt count.
fn spawn_load<L>(store: &Arc<Store>, guard: LoadGuard, no_cache: bool, load: L)
where
    L: Future<Output = Result<Representation, Status>> + Send + 'static,
{
    let store = store.clone();
    let context = context::current().unwrap_or_else(Context::background);
    let load = context::scope(Context { deadline: None, previous_attempts: 0, ..context }, load);
    drop(task::spawn(async move { run_load(&store, guard, no_cache, load).await }));
}

async fn run_load(store: &Store, guard: LoadGuard, no_cache: bool, load: impl Future<Output = Result<Representation, Status>>) {
    let key = guard.key().clone();
    let mut fallback = None;
    if !no_cache {
        // Another load may have completed since the lookup.
        if let Some(entry) = store.get(&key).filter(|entry| store.is_fresh(&key, entry)) {
            return guard.complete(|_, _| Ok(Loaded { entry, is_stored: true, is_from_redis: false }));
        }
        fallback = store.get_from_redis(&key).await;
        if let Some(value) = fallback.take_if(|(_, age)| *age < store.ttl) {
            return store.complete_from_redis(guard, value);
        }
    }
    let response = load.await;
    let loaded = response.as_ref().ok().cloned();
    let fallback = fallback.filter(|_| response.as_ref().is_err_and(allows_stale_if_error));
    let is_stored = store.complete(guard, response, fallback);
    if let (Key::Product(id), Some(redis), Some(Representation { body, version: Some(version) })) = (key, &store.redis, loaded)
        && is_stored
    {
        redis.set(id, version, &body).await;
    }
}

#[cfg(test)]
mod tests;

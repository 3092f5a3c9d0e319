//! Response cache for reads of products: bounded, single flight, invalidated by change events, with
//! stale-if-error.
//!
//! The cache runs after authorization and holds only responses that are identical for every
//! authorized caller. It is disabled unless `cache.ttl_ms` is set. Errors, `NOT_FOUND` included,
//! are never cached: concurrent callers of the same key share one error, and the next request loads
//! again.

mod background;
mod config;
mod get_or_load;
mod redis;
mod response;
mod single_flight;
mod store;

use std::{future::Future, sync::Arc, time::Duration};

use palisade_middleware::{config::Error, rejection::Rejection, task};
use palisade_proto::products::v1::FindAllRequest;
use tonic::Status;
use uuid::Uuid;

use self::{redis::RedisCache, store::Store};
use crate::metrics::{self, Cause};

pub use background::CacheTasks;
pub use config::Config;
pub(crate) use response::{CacheResult, NoCache, Representation};

/// Response cache. Cheap to clone; clones share their entries. The default is disabled.
#[derive(Debug, Clone, Default)]
pub struct Cache(Option<Arc<Shared>>);

/// Minimum version while the new version is unknown: above every real version, below that of a
/// removed product.
const UNKNOWN: i64 = i64::MAX - 1;

/// Cache key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One product.
    Product(Uuid),
    /// One page of the product list.
    Page(Arc<FindAllRequest>),
}

/// Version of a product after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The product has this version.
    Known(i64),
    /// The product was removed.
    Removed,
    /// The outcome of the change is unknown.
    Unknown,
}

/// Guard of a write to products: invalidates the product's entry when dropped, whatever the outcome
/// of the write.
#[derive(Debug)]
struct InvalidateOnDrop {
    shared: Arc<Shared>,
    product: Option<Uuid>,
    new_version: Version,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// Maximum wait for products while a stale entry is available (stale-while-revalidate).
    soft_timeout: Duration,
    redis: Option<Arc<RedisCache>>,
}

impl Cache {
    /// Returns the cache for `config` and its background tasks. The tasks are `None` if the cache
    /// is disabled.
    pub fn new(config: &Config) -> Result<(Self, Option<CacheTasks>), Error> {
        if !config.is_enabled() {
            return Ok((Self::default(), None));
        }
        let redis = config.redis()?.map(|client| RedisCache::new(client, config));
        let (second_level, invalidations) = redis.unzip();
        let shared = Arc::new(Shared {
            store: Store::new(config),
            soft_timeout: Duration::from_millis(config.soft_timeout_ms),
            redis: second_level,
        });
        Ok((Self(Some(shared.clone())), Some(CacheTasks::new(shared, invalidations))))
    }

    /// Whether the cache is enabled.
    pub(crate) fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the cached response of `key`, or loads it with `load`, which calls products.
    /// `no_cache` bypasses cached entries.
    pub(crate) async fn read<L>(&self, key: Key, no_cache: NoCache, load: L) -> Result<CacheResult, Status>
    where
        L: Future<Output = Result<Representation, Status>> + Send + 'static,
    {
        match &self.0 {
            Some(shared) => shared.read(key, no_cache, load).await,
            None => load.await.map(CacheResult::Uncached),
        }
    }

    /// Runs a write of a product and invalidates its entry afterwards. `product` is `None` for a
    /// create; `work` returns the new version.
    ///
    /// The write continues if the caller is cancelled: if the entry was invalidated before products
    /// commits the change, a concurrent read could cache the old product again.
    pub(crate) async fn invalidate_after<T: Send + 'static>(
        &self,
        product: Option<Uuid>,
        work: impl Future<Output = Result<(Version, T), Rejection>> + Send + 'static,
    ) -> Result<T, Rejection> {
        let Some(shared) = &self.0 else { return Ok(work.await?.1) };
        let guard = InvalidateOnDrop { shared: shared.clone(), product, new_version: Version::Unknown };
        let work = async move {
            // Moves the whole guard into the future.
            let mut guard = guard;
            let (new_version, response) = work.await?;
            guard.new_version = new_version;
            Ok(response)
        };
        task::run_to_completion(work).await
    }
}

impl Shared {
    /// Invalidates the entry of this product if it is older than `new_version`, and all pages.
    fn invalidate(&self, product: Option<Uuid>, new_version: Version, cause: Cause) {
        metrics::invalidations(cause).increment(1);
        self.store.invalidate(product, new_version);
        if let (Some(redis), Some(id)) = (&self.redis, product) {
            redis.invalidate(id, new_version);
        }
    }

    /// Invalidates every entry.
    fn invalidate_all(&self) {
        metrics::invalidations(Cause::Missed).increment(1);
        self.store.invalidate_all();
        if let Some(redis) = &self.redis {
            redis.invalidate_all();
        }
    }
}

impl Drop for InvalidateOnDrop {
    fn drop(&mut self) {
        self.shared.invalidate(self.product, self.new_version, Cause::Write);
    }
}

impl Version {
    /// Whether this is newer than `version`.
    fn supersedes(self, version: i64) -> bool {
        version < self.min_version()
    }

    /// Returns the lowest version that may still be current.
    fn min_version(self) -> i64 {
        match self {
            Self::Known(version) => version,
            Self::Unknown => UNKNOWN,
            Self::Removed => i64::MAX,
        }
    }
}

#[cfg(test)]
mod tests;

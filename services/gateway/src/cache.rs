//! Answers to reads of products that are kept for a while: bounded, loaded once however many ask, outdated by what products tells of its changes,
//! and still of use when products does not answer.
//!
//! It stands behind the checks of who may ask, and holds only what is the same for all who may. Off unless `cache.ttl_ms` is set. Refusals, those of
//! what does not exist among them, are never kept: who asks at the same time shares one, and that is all.

mod response;
mod config;
mod single_flight;
mod get_or_load;
mod redis;
mod store;
mod background;

use std::{future::Future, sync::Arc, time::Duration};

use palisade_middleware::{config::Error, rejection::Rejection, task};
use palisade_proto::products::v1::FindAllRequest;
use tonic::Status;
use uuid::Uuid;

use self::{redis::RedisCache, store::Store};
use crate::metrics::{self, Cause};

pub(crate) use response::{CacheResult, NoCache, Representation};
pub use config::Config;
pub use background::CacheTasks;

/// See the module. Cheap to clone; clones share what is kept.
#[derive(Debug, Clone, Default)]
pub struct Cache(Option<Arc<Shared>>);

/// Above all versions that there are, below that of what is gone.
const UNKNOWN: i64 = i64::MAX - 1;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One product.
    Product(Uuid),
    /// A page of a list.
    Page(Arc<FindAllRequest>),
}

/// The version of a product that a change has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// This one.
    Known(i64),
    /// None any more.
    Removed,
    /// It may have changed.
    Unknown,
}

/// A change that products is asked for. Dropped, whatever came of it, it outdates what was kept.
#[derive(Debug)]
struct InvalidateOnDrop {
    shared: Arc<Shared>,
    product: Option<Uuid>,
    new_version: Version,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// How long products may take when there is a stale answer.
    soft_timeout: Duration,
    redis: Option<Arc<RedisCache>>,
}

impl Cache {
    /// A cache as `config` wants it, and what has to run beside it; the latter is `None` if nothing is kept.
    pub fn new(config: &Config) -> Result<(Self, Option<CacheTasks>), Error> {
        if !config.is_enabled() {
            return Ok((Self::default(), None));
        }
        let redis = config.redis()?.map(|client| RedisCache::new(client, config));
        let (second_level, invalidations) = redis.unzip();
        let shared = Arc::new(Shared { store: Store::new(config), soft_timeout: Duration::from_millis(config.soft_timeout_ms), redis: second_level });
        Ok((Self(Some(shared.clone())), Some(CacheTasks::new(shared, invalidations))))
    }

    /// Whether anything is kept.
    pub(crate) fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// The answer to `key`: one that is kept, or that of `load`, which asks products. With `no_cache` nothing that is kept will do.
    pub(crate) async fn read<L>(&self, key: Key, no_cache: NoCache, load: L) -> Result<CacheResult, Status>
    where
        L: Future<Output = Result<Representation, Status>> + Send + 'static,
    {
        match &self.0 {
            Some(shared) => shared.read(key, no_cache, load).await,
            None => load.await.map(CacheResult::Uncached),
        }
    }

    /// Has `work` change this product, or make one, and tell which version it led to; what was kept is outdated when it is over. It goes on when its
    /// caller gives up: outdated before products has changed it, the old product would be kept once more.
    pub(crate) async fn invalidate_after<T: Send + 'static>(
        &self,
        product: Option<Uuid>,
        work: impl Future<Output = Result<(Version, T), Rejection>> + Send + 'static,
    ) -> Result<T, Rejection> {
        let Some(shared) = &self.0 else { return Ok(work.await?.1) };
        let guard = InvalidateOnDrop { shared: shared.clone(), product, new_version: Version::Unknown };
        let work = async move {
            // The whole of it comes along.
            let mut guard = guard;
            let (new_version, response) = work.await?;
            guard.new_version = new_version;
            Ok(response)
        };
        task::run_to_completion(work).await
    }
}

impl Shared {
    /// What is kept of this product, if it is older, and all pages are outdated.
    fn invalidate(&self, product: Option<Uuid>, new_version: Version, cause: Cause) {
        metrics::invalidations(cause).increment(1);
        self.store.invalidate(product, new_version);
        if let (Some(redis), Some(id)) = (&self.redis, product) {
            redis.invalidate(id, new_version);
        }
    }

    /// Everything that is kept is outdated.
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

    /// The least version that may be current.
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

//! Cache entries in memory and in Redis: their freshness and their invalidation.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use palisade_middleware::setting::Invalid;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    config::Config,
    key::{Key, Version},
    redis::{InvalidationQueue, RedisCache},
};
use crate::{
    metrics::{self, Cause, Load},
    single_flight::{self, SingleFlight},
};

/// Estimated overhead of an entry beyond its texts, bytes.
const OVERHEAD: usize = 256;

/// First-level cache in memory, with an optional second level in Redis.
#[derive(Debug)]
pub(super) struct Store {
    /// TTL of a fresh entry.
    pub(super) ttl: Duration,
    /// Maximum wait for products while a stale entry is available (stale-while-revalidate).
    pub(super) soft_timeout: Duration,
    /// Loads in flight.
    pub(super) loads: Arc<SingleFlight<Key, LoadResult>>,
    /// Second level.
    pub(super) redis: Option<Arc<RedisCache>>,
    /// Fresh and stale time of an entry.
    lifetime: Duration,
    entries: moka::sync::Cache<Key, Arc<Entry>>,
    /// Generations: incremented to invalidate all products, or all pages. An entry of an older
    /// generation is invalid.
    product_generation: AtomicU64,
    page_generation: AtomicU64,
}

/// JSON body of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Representation {
    pub(super) body: Bytes,
    /// Version of the product, `None` for a page.
    pub(super) version: Option<i64>,
}

/// Loaded response, cached or not.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) representation: Representation,
    /// Entity tag without its quotes.
    pub(super) tag: String,
    loaded_at: Instant,
    generation: u64,
    invalidated: AtomicBool,
}

/// Successful load, shared by all waiting callers.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) entry: Arc<Entry>,
    /// Whether the entry was stored in the cache.
    pub(super) is_stored: bool,
    /// Whether the entry came from Redis instead of products.
    pub(super) is_from_redis: bool,
}

/// Result of a load.
pub(super) type LoadResult = Result<Loaded, Status>;

/// Obligation to run a load.
pub(super) type LoadGuard = single_flight::LoadGuard<Key, LoadResult>;

/// Representation with its age since products returned it.
pub(super) type WithAge = (Representation, Duration);

impl Store {
    /// Creates an empty store, and the queue of its invalidations in Redis if that is configured.
    pub(super) fn new(config: &Config) -> Result<(Self, Option<InvalidationQueue>), Invalid> {
        let (redis, invalidations) = config.redis()?.map(|client| RedisCache::new(client, config)).unzip();
        let ttl = Duration::from_millis(config.ttl_ms);
        let lifetime = ttl + Duration::from_millis(config.stale_ms);
        let weight = |key: &Key, entry: &Arc<Entry>| u32::try_from(key.bytes() + entry.bytes()).unwrap_or(u32::MAX);
        let entries = moka::sync::Cache::builder().max_capacity(config.max_bytes).weigher(weight).time_to_live(lifetime).build();
        let store = Self {
            ttl,
            soft_timeout: Duration::from_millis(config.soft_timeout_ms),
            loads: Arc::default(),
            redis,
            lifetime,
            entries,
            product_generation: AtomicU64::new(0),
            page_generation: AtomicU64::new(0),
        };
        Ok((store, invalidations))
    }

    /// Returns the entry of `key`, fresh or stale.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        // moka's TTL only frees memory; the age decides.
        self.entries.get(key).filter(|entry| entry.age() < self.lifetime)
    }

    /// Whether the entry may be served without a call to products.
    pub(super) fn is_fresh(&self, key: &Key, entry: &Entry) -> bool {
        entry.age() < self.ttl && !self.is_invalidated(key, entry)
    }

    /// Returns the value of `key` in Redis, fresh or stale.
    pub(super) async fn get_from_redis(&self, key: &Key) -> Option<WithAge> {
        let (Key::Product(id), Some(redis)) = (key, &self.redis) else { return None };
        let value = redis.get(*id).await?;
        Some((Representation { body: value.body, version: Some(value.version) }, value.age))
    }

    /// Whether the entry was invalidated.
    pub(super) fn is_invalidated(&self, key: &Key, entry: &Entry) -> bool {
        entry.invalidated.load(Ordering::Acquire) || entry.generation != self.generation(key).load(Ordering::Acquire)
    }

    /// Completes a load with the response of products. Returns whether the entry was stored: not if
    /// it was invalidated during the load.
    ///
    /// If products failed, `fallback` (a stale value from Redis) is stored unless an entry exists.
    pub(super) fn complete(&self, guard: LoadGuard, response: Result<Representation, Status>, fallback: Option<WithAge>) -> bool {
        let mut is_stored = false;
        guard.complete(|key, is_current| match response {
            Ok(representation) => {
                is_stored = is_current;
                metrics::loads(if is_stored { Load::Stored } else { Load::Outdated }).increment(1);
                let entry = self.entry(key, (representation, Duration::ZERO), is_stored);
                Ok(Loaded { entry, is_stored, is_from_redis: false })
            }
            Err(status) => {
                metrics::loads(Load::Failed).increment(1);
                if is_current && status.code() == Code::NotFound {
                    self.entries.invalidate(key);
                }
                if let Some(value) = fallback.filter(|_| is_current && self.get(key).is_none()) {
                    self.entry(key, value, true);
                }
                Err(status)
            }
        });
        is_stored
    }

    /// Completes a load with a value from Redis.
    pub(super) fn complete_from_redis(&self, guard: LoadGuard, value: WithAge) {
        guard.complete(|key, is_stored| Ok(Loaded { entry: self.entry(key, value, is_stored), is_stored, is_from_redis: true }));
    }

    /// Invalidates the entry of `product` if it is older than `new_version`, all pages, and their
    /// loads in flight.
    pub(super) fn invalidate(&self, product: Option<Uuid>, new_version: Version, cause: Cause) {
        metrics::invalidations(cause).increment(1);
        let key = product.map(Key::Product);
        self.loads.invalidate(
            |loading| matches!(loading, Key::Page(_)) || Some(loading) == key.as_ref(),
            || {
                self.page_generation.fetch_add(1, Ordering::Release);
                match &key {
                    Some(key) if new_version == Version::Removed => self.entries.invalidate(key),
                    Some(key) => {
                        if let Some(older) = self.entries.get(key).filter(|entry| new_version.supersedes(entry.version())) {
                            older.invalidated.store(true, Ordering::Release);
                        }
                    }
                    None => {}
                }
            },
        );
        if let (Some(redis), Some(id)) = (&self.redis, product) {
            redis.invalidate(id, new_version);
        }
    }

    /// Invalidates every entry, because events were missed.
    pub(super) fn invalidate_all(&self) {
        metrics::invalidations(Cause::Missed).increment(1);
        let mark = || {
            self.product_generation.fetch_add(1, Ordering::Release);
            self.page_generation.fetch_add(1, Ordering::Release);
        };
        self.loads.invalidate(|_| true, mark);
        if let Some(redis) = &self.redis {
            redis.invalidate_all();
        }
    }

    /// Returns the number of entries in memory and their total size in bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }

    fn generation(&self, key: &Key) -> &AtomicU64 {
        match key {
            Key::Product(_) => &self.product_generation,
            Key::Page(_) => &self.page_generation,
        }
    }

    fn entry(&self, key: &Key, (representation, age): WithAge, is_stored: bool) -> Arc<Entry> {
        let tag = representation.version.map_or_else(|| digest(&representation.body), |version| version.to_string());
        let now = Instant::now();
        let loaded_at = now.checked_sub(age).unwrap_or(now);
        let generation = self.generation(key).load(Ordering::Acquire);
        let entry = Arc::new(Entry { representation, tag, loaded_at, generation, invalidated: AtomicBool::new(false) });
        if is_stored {
            self.entries.insert(key.clone(), entry.clone());
        }
        entry
    }
}

impl Representation {
    /// Serializes `resource` as JSON. `version` is `None` for a page.
    pub(crate) fn new(resource: &impl Serialize, version: Option<i64>) -> Result<Self, Status> {
        let body = serde_json::to_vec(resource).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self { body: body.into(), version })
    }
}

impl Entry {
    /// Time since products returned this response.
    pub(super) fn age(&self) -> Duration {
        self.loaded_at.elapsed()
    }

    /// Version of the product; 0 for a page.
    fn version(&self) -> i64 {
        self.representation.version.unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        OVERHEAD + self.representation.body.len()
    }
}

/// Entity tag of a page: the first 128 bits of the SHA-256 of its body.
fn digest(body: &[u8]) -> String {
    let mut tag = String::new();
    for byte in &Sha256::digest(body)[..16] {
        // Writing to a `String` cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag
}

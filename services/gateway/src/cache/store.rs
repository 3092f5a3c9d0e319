//! In-process entries, their freshness and their invalidation.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    Config, Key, Version,
    get_or_load::allows_stale_if_error,
    response::Representation,
    single_flight::{LoadGuard, Loaded, SingleFlight},
};
use crate::metrics::{self, Load};

/// Estimated overhead of an entry beyond its texts, bytes.
const OVERHEAD: usize = 256;

/// First-level cache in memory.
#[derive(Debug)]
pub(super) struct Store {
    /// TTL of a fresh entry.
    pub(super) ttl: Duration,
    /// Fresh and stale time of an entry.
    lifetime: Duration,
    entries: moka::sync::Cache<Key, Arc<Entry>>,
    loads: Arc<SingleFlight>,
    /// Generations: incremented to invalidate all products, or all pages. An entry of an older
    /// generation is invalid.
    product_generation: AtomicU64,
    page_generation: AtomicU64,
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

/// Representation with its age since products returned it.
pub(super) type WithAge = (Representation, Duration);

impl Store {
    pub(super) fn new(config: &Config) -> Self {
        let fresh = Duration::from_millis(config.ttl_ms);
        let lifetime = fresh + Duration::from_millis(config.stale_ms);
        let weight = |key: &Key, entry: &Arc<Entry>| u32::try_from(key.bytes() + entry.bytes()).unwrap_or(u32::MAX);
        let entries = moka::sync::Cache::builder().max_capacity(config.max_bytes).weigher(weight).time_to_live(lifetime).build();
        Self {
            ttl: fresh,
            lifetime,
            entries,
            loads: Arc::default(),
            product_generation: AtomicU64::new(0),
            page_generation: AtomicU64::new(0),
        }
    }

    /// Returns the loads in flight.
    pub(super) fn loads(&self) -> &Arc<SingleFlight> {
        &self.loads
    }

    /// Returns the entry of `key`, fresh or stale.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        // moka's TTL only frees memory; the age decides.
        self.entries.get(key).filter(|entry| entry.age() < self.lifetime)
    }

    pub(super) fn is_fresh(&self, key: &Key, entry: &Entry) -> bool {
        entry.age() < self.ttl && !self.is_invalidated(key, entry)
    }

    /// Whether the entry was invalidated.
    pub(super) fn is_invalidated(&self, key: &Key, entry: &Entry) -> bool {
        entry.invalidated.load(Ordering::Acquire) || entry.generation != self.generation(key).load(Ordering::Acquire)
    }

    /// Completes a load with the response of products. Returns whether the entry was stored: not if
    /// it was invalidated during the load.
    ///
    /// If products failed, `fallback` (a stale value from Redis) is stored unless an entry exists.
    pub(super) fn complete(&self, guard: LoadGuard, answer: Result<Representation, Status>, fallback: Option<WithAge>) -> bool {
        let mut is_stored = false;
        guard.complete(|key, is_current| match answer {
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
                if let Some(spare) = fallback.filter(|_| is_current && allows_stale_if_error(&status) && self.get(key).is_none()) {
                    self.entry(key, spare, true);
                }
                Err(status)
            }
        });
        is_stored
    }

    /// Completes a load with a value from Redis.
    pub(super) fn complete_from_redis(&self, guard: LoadGuard, stored: WithAge) {
        guard.complete(|key, is_kept| Ok(Loaded { entry: self.entry(key, stored, is_kept), is_stored: is_kept, is_from_redis: true }));
    }

    /// Invalidates the entry of `product` if it is older than `new_version`, all pages, and their
    /// loads in flight.
    pub(super) fn invalidate(&self, product: Option<Uuid>, new_version: Version) {
        let product = product.map(Key::Product);
        self.loads.invalidate(
            |key| matches!(key, Key::Page(_)) || Some(key) == product.as_ref(),
            || {
                self.page_generation.fetch_add(1, Ordering::Release);
                match &product {
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
    }

    /// Invalidates every entry.
    pub(super) fn invalidate_all(&self) {
        let mark = || {
            self.product_generation.fetch_add(1, Ordering::Release);
            self.page_generation.fetch_add(1, Ordering::Release);
        };
        self.loads.invalidate(|_| true, mark);
    }

    /// Returns the number of entries and their total size in bytes.
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

impl Key {
    fn bytes(&self) -> usize {
        match self {
            Self::Product(_) => 0,
            Self::Page(request) => {
                let texts = [request.category.as_deref(), request.q.as_deref(), Some(request.cursor.as_str())];
                texts.into_iter().flatten().map(str::len).sum()
            }
        }
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

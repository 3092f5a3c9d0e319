//! Bounded state of many token buckets.

use std::fmt;

use governor::{
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Number of maps, so that concurrent requests rarely wait for a lock.
const SHARDS: usize = 16;

/// Token buckets by key, at most a maximum of them. A known key keeps its bucket whatever comes.
/// While the store is full, new keys share one bucket.
pub(super) struct BoundedStore {
    shards: [Mutex<FxHashMap<u64, Nanos>>; SHARDS],
    max_per_shard: usize,
    overflow: Mutex<Option<Nanos>>,
}

impl fmt::Debug for BoundedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedStore").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl BoundedStore {
    pub(super) fn new(max_keys: usize) -> Self {
        Self { shards: Default::default(), max_per_shard: max_keys.div_ceil(SHARDS), overflow: Mutex::default() }
    }
}

impl StateStore for BoundedStore {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shards[usize::try_from(*key % SHARDS as u64).unwrap_or_default()].lock();
        if let Some(state) = shard.get_mut(key) {
            let (result, next) = measure(Some(*state))?;
            *state = next;
            return Ok(result);
        }
        if shard.len() < self.max_per_shard {
            let (result, next) = measure(None)?;
            shard.insert(*key, next);
            return Ok(result);
        }
        drop(shard);
        let mut overflow = self.overflow.lock();
        let (result, next) = measure(*overflow)?;
        *overflow = Some(next);
        Ok(result)
    }
}

impl ShrinkableKeyedStateStore<u64> for BoundedStore {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.shards {
            shard.lock().retain(|_, state| *state > drop_below);
        }
    }

    fn shrink_to_fit(&self) {
        for shard in &self.shards {
            shard.lock().shrink_to_fit();
        }
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().is_empty())
    }
}

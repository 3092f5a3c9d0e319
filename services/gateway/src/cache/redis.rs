//! Second-level cache: products by id in a Redis shared by all gateway replicas. It saves calls and
//! never causes an error.
//!
//! A value consists of the product's version, its lifetime in milliseconds and the JSON body. Its
//! age is derived from the TTL that Redis reports, so no clocks are compared. A version is never
//! overwritten by an older one. An invalidation writes a value without a body, which records the
//! minimum version. Each replica also remembers the invalidations that it received for as long as
//! an older value could be fresh, because Redis may have missed them.

mod connection;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Client, Pipeline, pipe};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use self::connection::RedisConnection;
use super::{
    config::Config,
    key::{UNKNOWN, Version},
};
use crate::metrics::{Operation, Outcome, redis_operations};

/// Capacity of the queue of invalidations to write. Beyond it, values expire by their TTL.
const QUEUE_CAPACITY: usize = 1_024;
/// Maximum number of products whose minimum version is remembered.
const MAX_MIN_VERSIONS: u64 = 100_000;
/// Maximum time between the response of products and the write to Redis: a response may be this
/// much older than its value.
const IN_FLIGHT_MARGIN: Duration = Duration::from_secs(1);
/// Key prefix. The number is the version of the product JSON: replicas of different releases must
/// not read each other's values.
const PREFIX: &str = "palisade:product:1:";
/// Compare-and-set: writes a value unless the stored version is higher than `ARGV[1]`.
const SET_IF_NEWER: &str = "local old = redis.call('GET', KEYS[1]) \
    if old and tonumber(string.match(old, '^%d+')) > tonumber(ARGV[1]) then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1";

/// Shared cache in Redis.
#[derive(Debug)]
pub(super) struct RedisCache {
    connection: RedisConnection,
    /// TTL of a value: fresh and stale time.
    lifetime: Duration,
    /// Lowest version of each product that is accepted.
    min_versions: moka::sync::Cache<Uuid, i64>,
    /// Values stored before this time are rejected.
    invalidated_at: Mutex<Option<Instant>>,
    invalidations: mpsc::Sender<(Uuid, Version)>,
}

/// Queue of invalidations, written to Redis by [`RedisCache::run_writer`].
pub(super) type InvalidationQueue = mpsc::Receiver<(Uuid, Version)>;

/// Product stored by another replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedisEntry {
    pub(super) version: i64,
    pub(super) body: Bytes,
    pub(super) age: Duration,
}

impl RedisCache {
    /// Creates the cache over `client`. Connects on first use.
    pub(super) fn new(client: Client, config: &Config) -> (Arc<Self>, InvalidationQueue) {
        let (invalidations, queue) = mpsc::channel(QUEUE_CAPACITY);
        let ttl = Duration::from_millis(config.ttl_ms);
        let redis = Self {
            connection: RedisConnection::new(client, Duration::from_millis(config.redis_timeout_ms)),
            lifetime: ttl + Duration::from_millis(config.stale_ms),
            min_versions: moka::sync::Cache::builder().max_capacity(MAX_MIN_VERSIONS).time_to_live(ttl).build(),
            invalidated_at: Mutex::default(),
            invalidations,
        };
        (Arc::new(redis), queue)
    }

    /// Returns the stored product, unless an invalidation made it obsolete.
    pub(super) async fn get(&self, id: Uuid) -> Option<RedisEntry> {
        let key = key(id);
        let mut commands = pipe();
        // One transaction: the TTL of a newer value must not be combined with an older value.
        commands.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (value, ttl_ms): (Option<Vec<u8>>, i64) = self.connection.run(Operation::Get, &commands).await?;
        let entry = value.and_then(|value| decode(value, ttl_ms)).filter(|entry| self.is_current(id, entry));
        redis_operations(Operation::Get, if entry.is_some() { Outcome::Hit } else { Outcome::Miss }).increment(1);
        entry
    }

    /// Stores the product for the other replicas.
    pub(super) async fn set(&self, id: Uuid, version: i64, body: &[u8]) {
        let header = format!("{version} {}\n", self.lifetime.as_millis());
        self.write(Operation::Set, &self.set_if_newer(id, version, &[header.as_bytes(), body].concat())).await;
    }

    /// Rejects older values of this product in this process at once. [`Self::run_writer`]
    /// propagates the invalidation to Redis.
    pub(super) fn invalidate(&self, id: Uuid, version: Version) {
        self.min_versions.entry(id).and_upsert_with(|known| {
            // Events may be repeated and reordered. A known version replaces an unknown one.
            let known = known.map(moka::Entry::into_value).filter(|known| *known != UNKNOWN);
            known.map_or(version.min_version(), |known| known.max(version.min_version()))
        });
        if self.invalidations.try_send((id, version)).is_err() {
            redis_operations(Operation::Forget, Outcome::Skipped).increment(1);
        }
    }

    /// Rejects every value that is already stored.
    pub(super) fn invalidate_all(&self) {
        *self.invalidated_at.lock() = Some(Instant::now());
    }

    /// Writes queued invalidations to Redis until every sender is dropped.
    pub(super) async fn run_writer(&self, queue: &mut InvalidationQueue) {
        while let Some((id, version)) = queue.recv().await {
            let commands = match version {
                // The next version is unknown, so there is no minimum version to record.
                Version::Unknown => {
                    let mut commands = pipe();
                    commands.cmd("DEL").arg(key(id));
                    commands
                }
                // Every replica receives the event, and one of them may already have stored the new
                // version: only older versions are replaced.
                Version::Known(_) | Version::Removed => {
                    self.set_if_newer(id, version.min_version() - 1, format!("{} 0\n", version.min_version()).as_bytes())
                }
            };
            self.write(Operation::Forget, &commands).await;
        }
    }

    /// Readiness probe: pings Redis.
    pub(super) async fn ping(&self) -> Result<(), String> {
        self.connection.ping().await
    }

    fn is_current(&self, id: Uuid, entry: &RedisEntry) -> bool {
        let min_version = self.min_versions.get(&id).unwrap_or_default();
        entry.version >= min_version && self.invalidated_at.lock().is_none_or(|time| entry.age + IN_FLIGHT_MARGIN < time.elapsed())
    }

    /// Builds the compare-and-set of `value`, which replaces versions up to `max_overwritten`.
    fn set_if_newer(&self, id: Uuid, max_overwritten: i64, value: &[u8]) -> Pipeline {
        let mut commands = pipe();
        let lifetime_ms = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        commands.cmd("EVAL").arg(SET_IF_NEWER).arg(1).arg(key(id)).arg(max_overwritten).arg(value).arg(lifetime_ms);
        commands
    }

    async fn write(&self, operation: Operation, commands: &Pipeline) {
        if let Some(()) = self.connection.run(operation, commands).await {
            redis_operations(operation, Outcome::Done).increment(1);
        }
    }
}

fn key(id: Uuid) -> String {
    format!("{PREFIX}{}", id.as_simple())
}

/// Decodes a value whose remaining TTL is `ttl_ms`. `None` if it is malformed, expired or without a
/// body.
fn decode(value: Vec<u8>, ttl_ms: i64) -> Option<RedisEntry> {
    let header_end = value.iter().position(|byte| *byte == b'\n')?;
    let (version, lifetime_ms) = std::str::from_utf8(&value[..header_end]).ok()?.split_once(' ')?;
    let lifetime_ms: u64 = lifetime_ms.parse().ok()?;
    let version = version.parse().ok()?;
    let age = Duration::from_millis(lifetime_ms.checked_sub(u64::try_from(ttl_ms).ok()?)?);
    let body = Bytes::from(value).split_off(header_end + 1);
    (!body.is_empty()).then_some(RedisEntry { version, body, age })
}

#[cfg(test)]
mod tests;

//! What replicas share: products in a Redis, by id. It saves a call and never costs an error.
//!
//! A value is the product's version, its lifetime in milliseconds, and the JSON; its age is what Redis says of that lifetime, so that no two clocks
//! are compared. A version is never overwritten by an older one: a change leaves a value without JSON, which says what is at least to come. And
//! each replica remembers for itself what it was told of, for as long as anything older could pass for fresh: Redis may have missed it.

mod connection;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Client, Pipeline, pipe};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use self::connection::RedisConnection;
use super::{Config, UNKNOWN, Version};
use crate::metrics::{Operation, Outcome, redis_operations};

/// Changes that wait to be told; what comes on top is left to its lifetime.
const QUEUE_CAPACITY: usize = 1_024;
/// Products whose changes are remembered.
const MAX_MIN_VERSIONS: u64 = 100_000;
/// What products said may be so much older than its value in Redis.
const IN_FLIGHT_MARGIN: Duration = Duration::from_secs(1);
/// The number counts the forms that the JSON of a product has had: replicas of two releases must not read each other's.
const PREFIX: &str = "palisade:product:1:";
/// Sets a value unless that of a version is there that is newer than the newest to be overwritten.
const SET_IF_NEWER: &str = "local old = redis.call('GET', KEYS[1]) \
    if old and tonumber(string.match(old, '^%d+')) > tonumber(ARGV[1]) then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1";

/// See the module.
#[derive(Debug)]
pub(super) struct RedisCache {
    server: RedisConnection,
    /// How long a value is of any use.
    lifetime: Duration,
    /// The least version that is believed of a product.
    min_versions: moka::sync::Cache<Uuid, i64>,
    /// Nothing that was there before is believed.
    invalidated_at: Mutex<Option<Instant>>,
    invalidations: mpsc::Sender<(Uuid, Version)>,
}

/// What is to be told to Redis, by [`SecondLevel::tell`].
pub(super) type InvalidationQueue = mpsc::Receiver<(Uuid, Version)>;

/// A product as another replica left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedisEntry {
    pub(super) version: i64,
    pub(super) body: Bytes,
    pub(super) age: Duration,
}

impl RedisCache {
    /// The Redis behind `client`; nothing is connected yet.
    pub(super) fn new(client: Client, config: &Config) -> (Arc<Self>, InvalidationQueue) {
        let (invalidations, queue) = mpsc::channel(QUEUE_CAPACITY);
        let fresh = Duration::from_millis(config.ttl_ms);
        let redis = Self {
            server: RedisConnection::new(client, Duration::from_millis(config.redis_timeout_ms)),
            lifetime: fresh + Duration::from_millis(config.stale_ms),
            min_versions: moka::sync::Cache::builder().max_capacity(MAX_MIN_VERSIONS).time_to_live(fresh).build(),
            invalidated_at: Mutex::default(),
            invalidations,
        };
        (Arc::new(redis), queue)
    }

    /// The product, if another replica has left it and nothing was told since.
    pub(super) async fn get(&self, id: Uuid) -> Option<RedisEntry> {
        let key = key(id);
        let mut commands = pipe();
        // In one step: the rest of a newer value is not that of an older.
        commands.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (value, rest_ms): (Option<Vec<u8>>, i64) = self.server.run(Operation::Get, &commands).await?;
        let stored = value.and_then(|value| decode(value, rest_ms)).filter(|left| self.is_current(id, left));
        redis_operations(Operation::Get, if stored.is_some() { Outcome::Hit } else { Outcome::Miss }).increment(1);
        stored
    }

    /// Leaves the product for others.
    pub(super) async fn set(&self, id: Uuid, version: i64, body: &[u8]) {
        let head = format!("{version} {}\n", self.lifetime.as_millis());
        self.write(Operation::Set, &self.set_if_newer(id, version, &[head.as_bytes(), body].concat())).await;
    }

    /// From now on nothing older is believed here; the others are told by [`Self::tell`].
    pub(super) fn invalidate(&self, id: Uuid, version: Version) {
        self.min_versions.entry(id).and_upsert_with(|known| {
            // Changes may be told twice, and in any order. What is known is better than what is not.
            let known = known.map(moka::Entry::into_value).filter(|known| *known != UNKNOWN);
            known.map_or(version.min_version(), |known| known.max(version.min_version()))
        });
        if self.invalidations.try_send((id, version)).is_err() {
            redis_operations(Operation::Forget, Outcome::Skipped).increment(1);
        }
    }

    /// From now on nothing that is there is believed.
    pub(super) fn invalidate_all(&self) {
        *self.invalidated_at.lock() = Some(Instant::now());
    }

    /// Tells Redis of what was outdated, as long as anybody outdates.
    pub(super) async fn run_writer(&self, mut queue: InvalidationQueue) {
        while let Some((id, version)) = queue.recv().await {
            let commands = match version {
                // It is not known which version is to come.
                Version::Unknown => {
                    let mut commands = pipe();
                    commands.cmd("DEL").arg(key(id));
                    commands
                }
                // Others have heard of the same change: what one of them has left of it by now stays.
                Version::Known(_) | Version::Removed => self.set_if_newer(id, version.min_version() - 1, format!("{} 0\n", version.min_version()).as_bytes()),
            };
            self.write(Operation::Forget, &commands).await;
        }
    }

    /// Whether it answers, for a probe.
    pub(super) async fn ping(&self) -> Result<(), String> {
        self.server.ping().await
    }

    fn is_current(&self, id: Uuid, entry: &RedisEntry) -> bool {
        let floor = self.min_versions.get(&id).unwrap_or_default();
        entry.version >= floor && self.invalidated_at.lock().is_none_or(|missed| entry.age + IN_FLIGHT_MARGIN < missed.elapsed())
    }

    /// Sets the `value` of `version`, over one whose version is at most `over`.
    fn set_if_newer(&self, id: Uuid, max_overwritten: i64, value: &[u8]) -> Pipeline {
        let mut commands = pipe();
        let lifetime_ms = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        commands.cmd("EVAL").arg(SET_IF_NEWER).arg(1).arg(key(id)).arg(max_overwritten).arg(value).arg(lifetime_ms);
        commands
    }

    async fn write(&self, operation: Operation, commands: &Pipeline) {
        if let Some(()) = self.server.run(operation, commands).await {
            redis_operations(operation, Outcome::Done).increment(1);
        }
    }
}

fn key(id: Uuid) -> String {
    format!("{PREFIX}{}", id.as_simple())
}

/// A value of which Redis says that it has `rest_ms` to live.
fn decode(value: Vec<u8>, ttl_ms: i64) -> Option<RedisEntry> {
    let head = value.iter().position(|byte| *byte == b'\n')?;
    let (version, lifetime_ms) = std::str::from_utf8(&value[..head]).ok()?.split_once(' ')?;
    let lifetime_ms: u64 = lifetime_ms.parse().ok()?;
    let version = version.parse().ok()?;
    let age = Duration::from_millis(lifetime_ms.checked_sub(u64::try_from(ttl_ms).ok()?)?);
    let body = Bytes::from(value).split_off(head + 1);
    (!body.is_empty()).then_some(RedisEntry { version, body, age })
}

#[cfg(test)]
mod tests;

//! What replicas share: products in a Redis, by id. It saves a call and never costs an error.
//!
//! A value is the product's version, its lifetime in milliseconds, and the JSON; its age is what Redis says of that lifetime, so that no two clocks
//! are compared. A version is never overwritten by an older one: a change leaves a value without JSON, which says what is at least to come. And
//! each replica remembers for itself what it was told of, for as long as anything older could pass for fresh: Redis may have missed it.

mod server;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Client, Pipeline, pipe};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use self::server::Server;
use super::{Config, UNKNOWN, Version};
use crate::metrics::{Operation, Outcome, second_level};

/// Changes that wait to be told; what comes on top is left to its lifetime.
const WAITING: usize = 1_024;
/// Products whose changes are remembered.
const REMEMBERED: u64 = 100_000;
/// What products said may be so much older than its value in Redis.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// The number counts the forms that the JSON of a product has had: replicas of two releases must not read each other's.
const PREFIX: &str = "palisade:product:1:";
/// Sets a value unless that of a version is there that is newer than the newest to be overwritten.
const RAISE: &str = "local old = redis.call('GET', KEYS[1]) \
    if old and tonumber(string.match(old, '^%d+')) > tonumber(ARGV[1]) then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1";

/// See the module.
#[derive(Debug)]
pub(super) struct SecondLevel {
    server: Server,
    /// How long a value is of any use.
    lifetime: Duration,
    /// The least version that is believed of a product.
    floors: moka::sync::Cache<Uuid, i64>,
    /// Nothing that was there before is believed.
    missed: Mutex<Option<Instant>>,
    changes: mpsc::Sender<(Uuid, Version)>,
}

/// What is to be told to Redis, by [`SecondLevel::tell`].
pub(super) type Changes = mpsc::Receiver<(Uuid, Version)>;

/// A product as another replica left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) version: i64,
    pub(super) body: Bytes,
    pub(super) age: Duration,
}

impl SecondLevel {
    /// The Redis behind `client`; nothing is connected yet.
    pub(super) fn new(client: Client, config: &Config) -> (Arc<Self>, Changes) {
        let (changes, told) = mpsc::channel(WAITING);
        let fresh = Duration::from_millis(config.ttl_ms);
        let redis = Self {
            server: Server::new(client, Duration::from_millis(config.redis_timeout_ms)),
            lifetime: fresh + Duration::from_millis(config.stale_ms),
            floors: moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_live(fresh).build(),
            missed: Mutex::default(),
            changes,
        };
        (Arc::new(redis), told)
    }

    /// The product, if another replica has left it and nothing was told since.
    pub(super) async fn get(&self, id: Uuid) -> Option<Left> {
        let key = key(id);
        let mut commands = pipe();
        // In one step: the rest of a newer value is not that of an older.
        commands.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (value, rest_ms): (Option<Vec<u8>>, i64) = self.server.ask(Operation::Get, &commands).await?;
        let left = value.and_then(|value| read(value, rest_ms)).filter(|left| self.believes(id, left));
        second_level(Operation::Get, if left.is_some() { Outcome::Hit } else { Outcome::Miss }).increment(1);
        left
    }

    /// Leaves the product for others.
    pub(super) async fn set(&self, id: Uuid, version: i64, body: &[u8]) {
        let head = format!("{version} {}\n", self.lifetime.as_millis());
        self.tell_one(Operation::Set, &self.raise(id, version, &[head.as_bytes(), body].concat())).await;
    }

    /// From now on nothing older is believed here; the others are told by [`Self::tell`].
    pub(super) fn outdate(&self, id: Uuid, version: Version) {
        self.floors.entry(id).and_upsert_with(|known| {
            // Changes may be told twice, and in any order. What is known is better than what is not.
            let known = known.map(moka::Entry::into_value).filter(|known| *known != UNKNOWN);
            known.map_or(version.floor(), |known| known.max(version.floor()))
        });
        if self.changes.try_send((id, version)).is_err() {
            second_level(Operation::Forget, Outcome::Skipped).increment(1);
        }
    }

    /// From now on nothing that is there is believed.
    pub(super) fn outdate_all(&self) {
        *self.missed.lock() = Some(Instant::now());
    }

    /// Tells Redis of what was outdated, as long as anybody outdates.
    pub(super) async fn tell(&self, mut changes: Changes) {
        while let Some((id, version)) = changes.recv().await {
            let commands = match version {
                // It is not known which version is to come.
                Version::Unknown => {
                    let mut commands = pipe();
                    commands.cmd("DEL").arg(key(id));
                    commands
                }
                // Others have heard of the same change: what one of them has left of it by now stays.
                Version::Is(_) | Version::Gone => self.raise(id, version.floor() - 1, format!("{} 0\n", version.floor()).as_bytes()),
            };
            self.tell_one(Operation::Forget, &commands).await;
        }
    }

    /// Whether it answers, for a probe.
    pub(super) async fn ping(&self) -> Result<(), String> {
        self.server.ping().await
    }

    fn believes(&self, id: Uuid, left: &Left) -> bool {
        let floor = self.floors.get(&id).unwrap_or_default();
        left.version >= floor && self.missed.lock().is_none_or(|missed| left.age + ON_ITS_WAY < missed.elapsed())
    }

    /// Sets the `value` of `version`, over one whose version is at most `over`.
    fn raise(&self, id: Uuid, over: i64, value: &[u8]) -> Pipeline {
        let mut commands = pipe();
        let lifetime_ms = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        commands.cmd("EVAL").arg(RAISE).arg(1).arg(key(id)).arg(over).arg(value).arg(lifetime_ms);
        commands
    }

    async fn tell_one(&self, operation: Operation, commands: &Pipeline) {
        if let Some(()) = self.server.ask(operation, commands).await {
            second_level(operation, Outcome::Done).increment(1);
        }
    }
}

fn key(id: Uuid) -> String {
    format!("{PREFIX}{}", id.as_simple())
}

/// A value of which Redis says that it has `rest_ms` to live.
fn read(value: Vec<u8>, rest_ms: i64) -> Option<Left> {
    let head = value.iter().position(|byte| *byte == b'\n')?;
    let (version, lifetime_ms) = std::str::from_utf8(&value[..head]).ok()?.split_once(' ')?;
    let lifetime_ms: u64 = lifetime_ms.parse().ok()?;
    let version = version.parse().ok()?;
    let age = Duration::from_millis(lifetime_ms.checked_sub(u64::try_from(rest_ms).ok()?)?);
    let body = Bytes::from(value).split_off(head + 1);
    (!body.is_empty()).then_some(Left { version, body, age })
}

#[cfg(test)]
mod tests;

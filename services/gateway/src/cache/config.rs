//! Settings of the response cache.

use std::path::PathBuf;

use palisade_middleware::{
    config::{self, SecretUrl},
    setting::Invalid,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Upper bound of each lifetime setting, milliseconds (30 days).
const MAX_LIFETIME_MS: u64 = 30 * 24 * 3_600_000;

/// Response cache for reads of products.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TTL of a fresh entry, milliseconds. Without invalidation events a change becomes visible
    /// after at most this time. 0 disables the cache.
    pub ttl_ms: u64,
    /// Time after expiry during which a stale entry may be served if products fails
    /// (stale-if-error), milliseconds. 0 disables.
    pub stale_ms: u64,
    /// Soft timeout for products while an expired entry is available, milliseconds. Afterwards the
    /// stale entry is served and the load continues (stale-while-revalidate).
    pub soft_timeout_ms: u64,
    /// Maximum total size of the entries, bytes.
    pub max_bytes: u64,
    /// URL of a Redis shared by the gateway replicas (second-level cache), e.g.
    /// `redis://user:password@127.0.0.1:6379`. Without it each replica has only its own cache.
    pub redis_url: Option<SecretUrl>,
    /// File with the Redis URL, for URLs that contain a password.
    pub redis_url_file: Option<PathBuf>,
    /// Timeout of a Redis operation, milliseconds. After a timeout or an error, Redis is not used
    /// for one second.
    pub redis_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl_ms: 0,
            stale_ms: 300_000,
            soft_timeout_ms: 500,
            max_bytes: 16 * 1024 * 1024,
            redis_url: None,
            redis_url_file: None,
            redis_timeout_ms: 50,
        }
    }
}

impl Config {
    /// Whether the cache is enabled.
    pub fn is_enabled(&self) -> bool {
        self.ttl_ms > 0
    }

    /// Whether stale entries are served while products is unavailable.
    pub(crate) fn serves_stale(&self) -> bool {
        self.is_enabled() && self.stale_ms > 0
    }

    /// Returns the Redis client, `None` if no URL is set.
    pub(super) fn redis(&self) -> Result<Option<redis::Client>, Invalid> {
        let (key, file_key) = ("cache.redis_url", "cache.redis_url_file");
        let url = config::optional_secret_url((key, &self.redis_url), (file_key, &self.redis_url_file))?;
        let Some(url) = url else { return Ok(None) };
        let redis_url = Some(url.expose()).filter(|url| url.starts_with("redis://"));
        // The error does not quote the URL: it may contain a password.
        let client = redis_url.and_then(|url| redis::Client::open(url).ok());
        let key = if self.redis_url.is_some() { key } else { file_key };
        client.map(Some).ok_or_else(|| Invalid::new(key, "must be redis://[user:password@]host[:port][/database]"))
    }

    /// Checks the range of every value. Does not read files.
    pub fn validate(&self) -> Vec<Invalid> {
        let lifetimes = [("cache.ttl_ms", self.ttl_ms), ("cache.stale_ms", self.stale_ms)];
        let too_long = lifetimes.into_iter().filter(|(_, value)| *value > MAX_LIFETIME_MS);
        let too_long = too_long.map(|(key, _)| Invalid::new(key, "must not be above 30 days"));
        let zero = config::not_zero([("cache.max_bytes", self.max_bytes), ("cache.redis_timeout_ms", self.redis_timeout_ms)]);
        too_long.chain(zero).collect()
    }

    /// Returns the errors of the Redis URL, also of one in a file.
    pub fn check(&self) -> Vec<Invalid> {
        self.redis().err().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_url_is_rejected_and_not_quoted() {
        let at = |url: &str| Config { redis_url: Some(url.into()), ..Config::default() };
        for url in ["redis://127.0.0.1", "redis://user:secret@redis:6379/1"] {
            at(url).redis().unwrap();
        }
        for url in ["", "127.0.0.1:6379", "http://secret:6379", "rediss://secret:6379", "redis://secret:port"] {
            let error = at(url).redis().unwrap_err().to_string();
            assert!(error.contains("cache.redis_url") && !error.contains("secret"), "{error}");
        }
        assert!(!Config::default().is_enabled() && Config::default().redis().unwrap().is_none());
    }

    #[test]
    fn lifetimes_are_limited_to_30_days() {
        let key = |config: Config| config.validate().remove(0).to_string();
        assert!(key(Config { ttl_ms: u64::MAX, ..Config::default() }).contains("cache.ttl_ms"));
        assert!(key(Config { stale_ms: MAX_LIFETIME_MS + 1, ..Config::default() }).contains("cache.stale_ms"));
        let longest = Config { ttl_ms: MAX_LIFETIME_MS, stale_ms: MAX_LIFETIME_MS, ..Config::default() };
        assert_eq!(longest.validate(), []);
    }
}

//! What can be set of the cache.

use std::path::PathBuf;

use palisade_middleware::config::{self, Error};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// What is older is of no use, whatever for.
const MAX_LIFETIME_MS: u64 = 30 * 24 * 3_600_000;

/// Answers to reads of products that are kept for a while.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long an answer is fresh, milliseconds. 0: nothing is kept.
    pub ttl_ms: u64,
    /// For how long after that it will do, marked as stale, while products does not answer. Milliseconds.
    pub stale_ms: u64,
    /// An answer that is just stale is given if products takes longer than this, milliseconds.
    pub soft_timeout_ms: u64,
    /// What all answers that are kept may take together, bytes.
    pub max_bytes: u64,
    /// Address of a Redis that replicas of the gateway share, e.g. `redis://user:password@127.0.0.1:6379`. Without one each replica keeps its own.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub redis_url: Option<SecretString>,
    /// File with the address, for addresses that hold a password.
    pub redis_url_file: Option<PathBuf>,
    /// How long Redis may take, milliseconds. After that, or an error, it is left alone for a second.
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
    /// Whether anything is kept.
    pub fn is_enabled(&self) -> bool {
        self.ttl_ms > 0
    }

    /// Whether there are answers while products is away.
    pub(crate) fn serves_stale(&self) -> bool {
        self.is_enabled() && self.stale_ms > 0
    }

    /// The address of Redis, if there is one.
    pub(super) fn redis(&self) -> Result<Option<redis::Client>, Error> {
        if self.redis_url.is_none() && self.redis_url_file.is_none() {
            return Ok(None);
        }
        let url = config::secret(("cache.redis_url", &self.redis_url), ("cache.redis_url_file", &self.redis_url_file))?;
        let plain = Some(url.expose_secret()).filter(|url| url.starts_with("redis://"));
        // Not repeated: it may hold a password.
        let client = plain.and_then(|url| redis::Client::open(url).ok());
        client.map(Some).ok_or_else(|| Error::rule("cache.redis_url", "must be redis://[user:password@]host[:port][/database]"))
    }

    /// Checks every value against its range. Files are not read yet.
    pub fn validate(&self) -> Result<(), Error> {
        if self.redis_url.is_some() {
            self.redis()?;
        }
        let lifetimes = [("cache.ttl_ms", self.ttl_ms), ("cache.stale_ms", self.stale_ms)];
        if let Some((key, _)) = lifetimes.into_iter().find(|(_, value)| *value > MAX_LIFETIME_MS) {
            return Err(Error::rule(key, "must not be above 30 days"));
        }
        let positive = [("cache.max_bytes", self.max_bytes), ("cache.redis_timeout_ms", self.redis_timeout_ms)];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Error::rule(key, "must be greater than 0")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_refused_and_not_repeated() {
        let at = |url: &str| Config { redis_url: Some(url.into()), ..Config::default() };
        for url in ["redis://127.0.0.1", "redis://user:secret@redis:6379/1"] {
            at(url).validate().unwrap();
        }
        for url in ["", "127.0.0.1:6379", "http://secret:6379", "rediss://secret:6379", "redis://secret:port"] {
            let error = at(url).validate().unwrap_err().to_string();
            assert!(error.contains("cache.redis_url") && !error.contains("secret"), "{error}");
        }
        assert!(!Config::default().is_enabled() && Config::default().redis().unwrap().is_none());
    }

    #[test]
    fn nothing_is_kept_for_ever() {
        let key = |config: Config| config.validate().unwrap_err().to_string();
        assert!(key(Config { ttl_ms: u64::MAX, ..Config::default() }).contains("cache.ttl_ms"));
        assert!(key(Config { stale_ms: MAX_LIFETIME_MS + 1, ..Config::default() }).contains("cache.stale_ms"));
        Config { ttl_ms: MAX_LIFETIME_MS, stale_ms: MAX_LIFETIME_MS, ..Config::default() }.validate().unwrap();
    }
}

//! Configuration of events and their broker.

use std::path::PathBuf;

use palisade_middleware::{
    config::{self, SecretUrl},
    setting::Invalid,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Events, and the broker that delivers them to other processes.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// NATS URL, e.g. `nats://127.0.0.1:4222` or `tls://…`; several are separated by commas.
    /// Without a URL, events stay within this process.
    pub nats_url: Option<SecretUrl>,
    /// File with the NATS URL, for URLs that contain a password.
    pub nats_url_file: Option<PathBuf>,
    /// Poll interval of the outbox when no notification arrives, milliseconds.
    pub poll_ms: u64,
    /// Maximum number of events per batch.
    pub batch: u32,
    /// Lease duration of the publishing replica, milliseconds. After a crash another replica takes
    /// over when the lease expires.
    pub lease_ms: u64,
    /// Maximum number of publish attempts that the broker rejects. The event is dead-lettered
    /// afterwards.
    pub max_publish_attempts: u32,
    /// Number of stream replicas in the NATS cluster.
    pub stream_replicas: usize,
    /// Maximum stream size, bytes. New events wait in the outbox while the stream is full. 0 uses
    /// the server's limit.
    pub stream_max_bytes: u64,
    /// Maximum event size, bytes. Larger events are rejected. 0 uses the server's limit.
    pub stream_max_event_bytes: u32,
    /// Retention of events in the stream, hours. Consumers that are offline for longer miss events.
    pub stream_max_age_hours: u64,
    /// Deduplication window of the stream, milliseconds. An event that is published twice within it
    /// is stored once.
    pub duplicate_window_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nats_url: None,
            nats_url_file: None,
            poll_ms: 500,
            batch: 256,
            lease_ms: 10_000,
            max_publish_attempts: 5,
            stream_replicas: 1,
            stream_max_bytes: 0,
            stream_max_event_bytes: 0,
            stream_max_age_hours: 168,
            duplicate_window_ms: 120_000,
        }
    }
}

impl Config {
    /// Returns the broker URLs, or `None` without a broker.
    pub fn url(&self) -> Result<Option<SecretUrl>, Invalid> {
        let (key, file_key) = ("events.nats_url", "events.nats_url_file");
        let url = config::optional_secret_url((key, &self.nats_url), (file_key, &self.nats_url_file))?;
        let Some(url) = url else { return Ok(None) };
        let known = |address: &str| ["nats://", "tls://"].iter().any(|scheme| address.trim().starts_with(scheme));
        let valid = url.expose().split(',').all(|address| known(address) && address.trim().parse::<async_nats::ServerAddr>().is_ok());
        // The value is not part of the message: it may contain a password.
        if valid {
            Ok(Some(url))
        } else {
            let key = if self.nats_url.is_some() { key } else { file_key };
            Err(Invalid::new(key, "must be one or more comma-separated URLs of the form nats://host:port or tls://host:port"))
        }
    }

    /// Validates the range of every value. Does not read files.
    pub fn validate(&self) -> Vec<Invalid> {
        let mut invalid: Vec<_> = config::not_zero([
            ("events.poll_ms", self.poll_ms),
            ("events.batch", self.batch.into()),
            ("events.lease_ms", self.lease_ms),
            ("events.max_publish_attempts", self.max_publish_attempts.into()),
            ("events.stream_replicas", self.stream_replicas as u64),
            ("events.stream_max_age_hours", self.stream_max_age_hours),
            ("events.duplicate_window_ms", self.duplicate_window_ms),
        ])
        .collect();
        if self.duplicate_window_ms > self.stream_max_age_hours.saturating_mul(3_600_000) {
            invalid.push(Invalid::new("events.duplicate_window_ms", "must not be longer than stream_max_age_hours"));
        }
        invalid
    }

    /// Returns the errors of the broker URL, also of one in a file.
    pub fn check(&self) -> Vec<Invalid> {
        self.url().err().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_nats_url_is_rejected_and_not_quoted() {
        let at = |url: &str| Config { nats_url: Some(url.into()), ..Config::default() };
        for url in ["nats://127.0.0.1:4222", "tls://user:secret@nats:4222", "nats://a:1, nats://b:2"] {
            at(url).url().unwrap();
        }
        for url in ["", "http://secret:4222", "nats://a:1,b:2"] {
            let error = at(url).url().unwrap_err().to_string();
            assert!(error.contains("events.nats_url") && !error.contains("secret"), "{error}");
        }
        assert!(Config::default().url().unwrap().is_none());
    }
}

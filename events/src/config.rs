//! What can be set of events.

use std::path::PathBuf;

use palisade_middleware::config::{self, Error};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// Events, and the broker that carries them to other processes.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the NATS server, e.g. `nats://127.0.0.1:4222`, `tls://…`, or several separated by commas. Without one, events stay in this
    /// process.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub nats_url: Option<SecretString>,
    /// File with the address, for addresses that hold a password.
    pub nats_url_file: Option<PathBuf>,
    /// How often the outbox is looked into when nothing says that there is something in it, milliseconds.
    pub poll_ms: u64,
    /// Events that are published at once.
    pub batch: u32,
    /// How long one replica publishes alone; after a crash another one takes over so much later. Milliseconds.
    pub lease_ms: u64,
    /// An event that the broker has refused this often is put aside.
    pub max_publish_attempts: u32,
    /// Copies that a cluster keeps of the stream.
    pub stream_replicas: usize,
    /// The largest the stream may become, bytes; then events wait in the outbox. 0: as large as the server lets it.
    pub stream_max_bytes: u64,
    /// The largest event that the stream takes, bytes. 0: as large as the server lets it.
    pub stream_max_event_bytes: u32,
    /// How long the stream keeps events for consumers that are away, hours.
    pub stream_max_age_hours: u64,
    /// How long the stream knows an event again that is published twice, milliseconds.
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
    /// The addresses of the broker, if there is one.
    pub fn url(&self) -> Result<Option<SecretString>, Error> {
        if self.nats_url.is_none() && self.nats_url_file.is_none() {
            return Ok(None);
        }
        let url = config::secret(("events.nats_url", &self.nats_url), ("events.nats_url_file", &self.nats_url_file))?;
        let known = |address: &str| ["nats://", "tls://"].iter().any(|scheme| address.trim().starts_with(scheme));
        let valid =
            url.expose_secret().split(',').all(|address| known(address) && address.trim().parse::<async_nats::ServerAddr>().is_ok());
        // Not repeated: it may hold a password.
        if valid {
            Ok(Some(url))
        } else {
            Err(Error::rule("events.nats_url", "must be nats://host:port or tls://host:port, or several separated by commas"))
        }
    }

    /// Checks every value against its range. Files are not read yet.
    pub fn validate(&self) -> Result<(), Error> {
        if self.nats_url.is_some() {
            self.url()?;
        }
        let positive = [
            ("events.poll_ms", self.poll_ms),
            ("events.batch", self.batch.into()),
            ("events.lease_ms", self.lease_ms),
            ("events.max_refusals", self.max_publish_attempts.into()),
            ("events.stream_replicas", self.stream_replicas as u64),
            ("events.stream_max_age_hours", self.stream_max_age_hours),
            ("events.duplicate_window_ms", self.duplicate_window_ms),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Error::rule(key, "must be greater than 0")),
            None if self.duplicate_window_ms > self.stream_max_age_hours.saturating_mul(3_600_000) => {
                Err(Error::rule("events.duplicate_window_ms", "must not be longer than stream_max_age_hours"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_refused_and_not_repeated() {
        let at = |url: &str| Config { nats_url: Some(url.into()), ..Config::default() };
        for url in ["nats://127.0.0.1:4222", "tls://user:secret@nats:4222", "nats://a:1, nats://b:2"] {
            at(url).validate().unwrap();
        }
        for url in ["", "http://secret:4222", "nats://a:1,b:2"] {
            let error = at(url).validate().unwrap_err().to_string();
            assert!(error.contains("events.nats_url") && !error.contains("secret"), "{error}");
        }
        assert!(Config::default().url().unwrap().is_none());
    }
}

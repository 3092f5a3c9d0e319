//! Service registration in etcd, for the lifetime of the process.
//!
//! The key is written once the service is ready, kept alive by a lease, and recreated whenever etcd
//! has lost it. It is removed at the first shutdown signal, before anything else, so that clients
//! have moved to other replicas when draining starts. A key removed by an operator stays away,
//! which takes one replica out of service.

use std::{convert::Infallible, fmt, net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    etcd::lease::LeasedKey,
    upstream::{EtcdPrefix, InvalidUpstream},
};
use palisade_resilience::{
    jitter,
    job::{self, Heartbeat},
};
use palisade_transport::client::address::Address;

/// Minimum lease TTL that etcd grants, approximately.
const MIN_LEASE_SECONDS: u32 = 2;
/// A dead process must not stay registered for more than a day.
const MAX_LEASE_SECONDS: u32 = 86_400;
/// Clients are notified within milliseconds; a longer delay only slows down the shutdown.
const MAX_DEREGISTER_DELAY_MS: u64 = 30_000;

/// Registration of this service in etcd. Disabled unless `url` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// etcd prefix for the key of this process, which clients use as `url`:
    /// `etcd://host:2379/palisade/products`, several `host:port` separated by commas. Empty
    /// disables.
    pub url: String,
    /// Advertised address, `http://host:port`. Default: the listen address, which must then be a
    /// specific one.
    pub address: String,
    /// Lease TTL, seconds: how long the key of a dead process remains. Also how long a process may
    /// be registered without contact to etcd.
    pub lease_ttl_s: u32,
    /// Delay between deregistration and draining after SIGTERM, milliseconds. Clients switch to
    /// other replicas meanwhile.
    pub deregister_delay_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: String::new(), address: String::new(), lease_ttl_s: 10, deregister_delay_ms: 200 }
    }
}

/// Invalid registration setting; the text begins with its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Invalid etcd URL.
    #[error(transparent)]
    Url(#[from] InvalidUpstream),
    /// Invalid advertised address.
    #[error("address must be http://host:port, not {0:?}")]
    Address(String),
    /// The advertised address contains credentials.
    #[error("address must not contain a user or a password")]
    Credentials,
    /// Missing advertised address.
    #[error("address is required: {0} is not an address that clients can call")]
    NoAddress(SocketAddr),
    /// Value out of range.
    #[error("{0}")]
    Range(&'static str),
}

impl Config {
    /// Checks every value against its range, for a service that listens on `listen`.
    pub fn validate(&self, listen: SocketAddr) -> Result<(), InvalidConfig> {
        self.advertisement(listen).map(drop)
    }

    /// Returns the prefix and the advertised address, or `None` if registration is disabled.
    fn advertisement(&self, listen: SocketAddr) -> Result<Option<(EtcdPrefix, Address)>, InvalidConfig> {
        if !(MIN_LEASE_SECONDS..=MAX_LEASE_SECONDS).contains(&self.lease_ttl_s) {
            return Err(InvalidConfig::Range("lease_ttl_s must be from 2 to 86400"));
        }
        if self.deregister_delay_ms > MAX_DEREGISTER_DELAY_MS {
            return Err(InvalidConfig::Range("deregister_delay_ms must be at most 30000"));
        }
        if self.url.is_empty() {
            return Ok(None);
        }
        let location = EtcdPrefix::parse(&self.url)?;
        if self.address.is_empty() {
            let address = Some(listen).filter(|listen| !listen.ip().is_unspecified());
            // Port 0 stands for the real port, known only after binding.
            let address = address.and_then(|listen| Address::from_socket_addr(SocketAddr::new(listen.ip(), listen.port().max(1))));
            return address.map(|address| Some((location, address))).ok_or(InvalidConfig::NoAddress(listen));
        }
        if self.address.contains('@') {
            return Err(InvalidConfig::Credentials);
        }
        let address = Address::parse(&self.address).map_err(|_| InvalidConfig::Address(self.address.clone()))?;
        Ok(Some((location, address)))
    }
}

/// Registration of one service: a key in etcd under a lease.
pub struct Registration {
    service: &'static str,
    key: LeasedKey,
    registered: watch::Sender<bool>,
    deregister_delay: Duration,
    counters: RegistrationMetrics,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("service", &self.service).finish_non_exhaustive()
    }
}

struct RegistrationMetrics {
    registered: metrics::Gauge,
    succeeded: metrics::Counter,
    lost: metrics::Counter,
}

impl RegistrationMetrics {
    fn new(service: &'static str) -> Self {
        let count = |outcome: &'static str| palisade_resilience::counter!("palisade.registration.changes", "service" => service, "outcome" => outcome);
        let registered = palisade_resilience::gauge!("palisade.registration.up", "service" => service);
        registered.set(0.0);
        Self { registered, succeeded: count("made"), lost: count("lost") }
    }
}

impl Registration {
    /// Registration of `service`, which listens on `listen`; `None` if `config` disables it.
    pub fn new(service: &'static str, config: &Config, listen: SocketAddr) -> Result<Option<Self>, InvalidConfig> {
        let Some((location, address)) = config.advertisement(listen)? else { return Ok(None) };
        let key =
            LeasedKey::new(location, address.name(), &format!("http://{}", address.name()), config.lease_ttl_s.into(), jitter::random_unit);
        Ok(Some(Self {
            service,
            key,
            registered: watch::Sender::new(false),
            deregister_delay: Duration::from_millis(config.deregister_delay_ms),
            counters: RegistrationMetrics::new(service),
        }))
    }

    /// Whether the key is in etcd, as it changes.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.registered.subscribe()
    }

    /// Keeps the service registered until `shutdown`, then deregisters it and waits for clients to
    /// move on.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let heartbeat = Heartbeat::new("registration");
        while let Some(panicked) = shutdown.run_until_cancelled(heartbeat.idle(job::catch(Box::pin(self.maintain())))).await {
            let Err(panicked) = panicked;
            heartbeat.failure(&panicked);
            let backoff = self.key.next_backoff();
            if shutdown.run_until_cancelled(tokio::time::sleep(backoff)).await.is_none() {
                break;
            }
        }
        let was_registered = self.registered.send_replace(false);
        self.counters.registered.set(0.0);
        match self.key.revoke().await {
            Ok(()) => tracing::info!(service = self.service, "service deregistered"),
            Err(error) => tracing::warn!(
                service = self.service,
                error = &error as &dyn std::error::Error,
                "deregistration failed, the entry remains until its lease expires"
            ),
        }
        if was_registered {
            tokio::time::sleep(self.deregister_delay).await;
        }
    }

    /// Registers and re-registers forever.
    async fn maintain(&mut self) -> Infallible {
        // Logs once per change.
        let mut logged = None;
        loop {
            let (registered, counters, service) = (&self.registered, &self.counters, self.service);
            let lost = self.key.maintain(|| {
                registered.send_replace(true);
                counters.registered.set(1.0);
                counters.succeeded.increment(1);
                tracing::info!(service, "service registered");
            });
            let lost = lost.await;
            let was_registered = self.registered.send_replace(false);
            self.counters.registered.set(0.0);
            self.counters.lost.increment(1);
            if was_registered || logged.is_none() {
                logged = Some(());
                tracing::warn!(service, error = &lost as &dyn std::error::Error, "registration lost or failed, retrying");
            }
            tokio::time::sleep(self.key.next_backoff()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_error_names_setting() {
        let (specific, unspecified) = ("10.0.0.7:5000".parse().unwrap(), "0.0.0.0:5000".parse().unwrap());
        let on = Config { url: "etcd://a:2379/palisade/products".to_owned(), ..Config::default() };
        let text = |config: &Config, listen| config.validate(listen).unwrap_err().to_string();
        assert_eq!(Config::default().validate(unspecified), Ok(()));
        assert_eq!(on.advertisement(specific).unwrap().unwrap().1.name(), "10.0.0.7:5000");
        assert!(text(&on, unspecified).starts_with("address is required"));
        let advertised = Config { address: "http://products-1:5000".to_owned(), ..on.clone() };
        assert_eq!(advertised.advertisement(unspecified).unwrap().unwrap().1.name(), "products-1:5000");
        assert!(text(&Config { address: "products-1:5000".to_owned(), ..on.clone() }, unspecified).starts_with("address must be"));
        assert!(text(&Config { url: "http://a:2379".to_owned(), ..on.clone() }, specific).starts_with("url must be etcd://"));
        assert!(text(&Config { lease_ttl_s: 1, ..on.clone() }, specific).starts_with("lease_ttl_s "));
        assert!(text(&Config { deregister_delay_ms: 30_001, ..on }, specific).starts_with("deregister_delay_ms "));
    }
}

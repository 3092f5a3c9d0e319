//! Telling etcd where this service is, for as long as it is there.
//!
//! The entry is made once the service is ready, kept alive by a lease, and made again whenever etcd has lost it. It is taken back at the
//! first signal to stop, before anything else happens, so that callers have gone elsewhere when the draining begins. An entry that an
//! operator removes by hand stays away: that is how one replica is taken out.

use std::{net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    etcd::lease::LeasedKey,
    upstream::{InvalidUpstream, EtcdPrefix},
};
use crate::{client::address::Address, health::Readiness, jitter, process::Process};

/// etcd grants no shorter lease than about this.
const MIN_LEASE_SECONDS: u32 = 2;
/// Longer than a day nobody wants to hear of a dead process.
const MAX_LEASE_SECONDS: u32 = 86_400;
/// Callers know within milliseconds; a longer pause only holds up the end.
const MAX_DEREGISTER_DELAY_MS: u64 = 30_000;

/// Where others are told of this service; off unless `url` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `etcd://host:2379/palisade/products` puts an entry for this process under that path, which is what clients are given as `url`; several
    /// `host:port` are separated by commas. Nobody is told if it is empty.
    pub url: String,
    /// What others are to call, `http://host:port`. If it is empty, the address that is listened on, which must then be a particular one.
    pub address: String,
    /// How long the entry of a process that died stays, seconds; also how long one that lost etcd may be without it.
    pub lease_ttl_s: u32,
    /// After SIGTERM, how long callers have from the end of the entry until the draining begins, milliseconds.
    pub deregister_delay_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: String::new(), address: String::new(), lease_ttl_s: 10, deregister_delay_ms: 200 }
    }
}

/// A value that makes no sense; the text begins with its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Not a place in etcd.
    #[error(transparent)]
    Url(#[from] InvalidUpstream),
    /// Not an address.
    #[error("address must be http://host:port, not {0:?}")]
    Address(String),
    /// There is none.
    #[error("address is needed: {0} is not an address that others could call")]
    NoAddress(SocketAddr),
    /// A number out of its range.
    #[error("{0}")]
    Range(&'static str),
}

impl Config {
    /// Checks every value against its range, for a service that listens on `listen`.
    pub fn validate(&self, listen: SocketAddr) -> Result<(), InvalidConfig> {
        self.advertisement(listen).map(drop)
    }

    /// Where to tell what; nothing if it is off.
    fn advertisement(&self, listen: SocketAddr) -> Result<Option<(EtcdPrefix, Address)>, InvalidConfig> {
        if !(MIN_LEASE_SECONDS..=MAX_LEASE_SECONDS).contains(&self.lease_ttl_s) {
            return Err(InvalidConfig::Range("lease_seconds must be from 2 to 86400"));
        }
        if self.deregister_delay_ms > MAX_DEREGISTER_DELAY_MS {
            return Err(InvalidConfig::Range("leave_ms must be at most 30000"));
        }
        if self.url.is_empty() {
            return Ok(None);
        }
        let location = EtcdPrefix::parse(&self.url)?;
        if self.address.is_empty() {
            let address = Some(listen).filter(|listen| !listen.ip().is_unspecified());
            // Port 0 is replaced by the real one once it is known.
            let address = address.and_then(|listen| Address::from_socket_addr(SocketAddr::new(listen.ip(), listen.port().max(1))));
            return address.map(|address| Some((location, address))).ok_or(InvalidConfig::NoAddress(listen));
        }
        let address = Address::parse(&self.address).map_err(|_| InvalidConfig::Address(self.address.clone()))?;
        Ok(Some((location, address)))
    }
}

/// Registers the service that listens on `listen` while the process lives, if `config` says so; `readiness` then shows how that goes, and
/// when to begin.
pub fn start(
    service: &'static str,
    config: &Config,
    listen: SocketAddr,
    readiness: &Readiness,
    process: &Process,
) -> Result<(), InvalidConfig> {
    let Some((location, address)) = config.advertisement(listen)? else { return Ok(()) };
    let key = LeasedKey::new(location, address.name(), &format!("http://{}", address.name()), config.lease_ttl_s.into(), jitter::random_unit);
    let registered = watch::Sender::new(false);
    let status = registered.subscribe();
    // A service that cannot be found is still well: those who know it go on calling.
    readiness.watch("etcd", false, process.shutdown.clone(), move || {
        let registered = *status.borrow();
        async move { if registered { Ok(()) } else { Err("this service is not registered".to_owned()) } }
    });
    let mut ready = readiness.subscribe();
    let deregister_delay = Duration::from_millis(config.deregister_delay_ms);
    process.spawn_registration(|shutdown: CancellationToken| async move {
        if !matches!(shutdown.run_until_cancelled(ready.wait_for(|ready| *ready)).await, Some(Ok(_))) {
            return;
        }
        Registration { service, key, registered, counters: RegistrationMetrics::new(service) }.run(shutdown, deregister_delay).await;
    });
    Ok(())
}

struct Registration {
    service: &'static str,
    key: LeasedKey,
    registered: watch::Sender<bool>,
    counters: RegistrationMetrics,
}

struct RegistrationMetrics {
    registered: metrics::Gauge,
    succeeded: metrics::Counter,
    lost: metrics::Counter,
}

impl RegistrationMetrics {
    fn new(service: &'static str) -> Self {
        let count = |outcome: &'static str| metrics::counter!("palisade.registration.changes", "service" => service, "outcome" => outcome);
        let registered = metrics::gauge!("palisade.registration.registered", "service" => service);
        registered.set(0.0);
        Self { registered, succeeded: count("made"), lost: count("lost") }
    }
}

impl Registration {
    async fn run(mut self, shutdown: CancellationToken, deregister_delay: Duration) {
        let stop = shutdown.clone();
        let _ = stop.run_until_cancelled(self.maintain()).await;
        let was_registered = self.registered.send_replace(false);
        self.counters.registered.set(0.0);
        match self.key.revoke().await {
            Ok(()) => tracing::info!(service = self.service, "left the registry"),
            Err(error) => tracing::warn!(
                service = self.service,
                error = &error as &dyn std::error::Error,
                "could not leave the registry, the entry stays until its lease ends"
            ),
        }
        if was_registered {
            tokio::time::sleep(deregister_delay).await;
        }
    }

    /// For ever.
    async fn maintain(&mut self) {
        // Said once, and not again until it has changed.
        let mut logged = None;
        loop {
            let (registered, counters, service) = (&self.registered, &self.counters, self.service);
            let lost = self.key.maintain(|| {
                registered.send_replace(true);
                counters.registered.set(1.0);
                counters.succeeded.increment(1);
                tracing::info!(service, "registered");
            });
            let lost = lost.await;
            let was_registered = self.registered.send_replace(false);
            self.counters.registered.set(0.0);
            self.counters.lost.increment(1);
            if was_registered || logged.is_none() {
                logged = Some(());
                tracing::warn!(service, error = &lost as &dyn std::error::Error, "not registered, it is tried again");
            }
            tokio::time::sleep(self.key.next_backoff()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_key() {
        let (specific, unspecified) = ("10.0.0.7:5000".parse().unwrap(), "0.0.0.0:5000".parse().unwrap());
        let on = Config { url: "etcd://a:2379/palisade/products".to_owned(), ..Config::default() };
        let text = |config: &Config, listen| config.validate(listen).unwrap_err().to_string();
        assert_eq!(Config::default().validate(unspecified), Ok(()));
        assert_eq!(on.advertisement(specific).unwrap().unwrap().1.name(), "10.0.0.7:5000");
        assert!(text(&on, unspecified).starts_with("address is needed"));
        let advertised = Config { address: "http://products-1:5000".to_owned(), ..on.clone() };
        assert_eq!(advertised.advertisement(unspecified).unwrap().unwrap().1.name(), "products-1:5000");
        assert!(text(&Config { address: "products-1:5000".to_owned(), ..on.clone() }, unspecified).starts_with("address must be"));
        assert!(text(&Config { url: "http://a:2379".to_owned(), ..on.clone() }, specific).starts_with("url must be etcd://"));
        assert!(text(&Config { lease_ttl_s: 1, ..on.clone() }, specific).starts_with("lease_seconds "));
        assert!(text(&Config { deregister_delay_ms: 30_001, ..on }, specific).starts_with("leave_ms "));
    }
}

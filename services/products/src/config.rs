//! Settings of the products service.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use palisade_middleware::{
    auth, client,
    clock::SystemClock,
    config::{self, Error, Validate},
    discovery::registration,
    jobs,
    process::ServiceConfig,
    server, telemetry,
};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// Settings of the products service.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the gRPC port.
    pub listen: SocketAddr,
    /// Address of the admin port: health, metrics, stock audit and operator routes. Must not be
    /// reachable by the public.
    pub admin_listen: SocketAddr,
    /// Product store.
    pub store: Store,
    /// Stock reservations.
    pub reservations: Reservations,
    /// Searches by text.
    pub search: Search,
    /// Periodic stock audit.
    pub audit: Audit,
    /// Background jobs.
    pub jobs: jobs::Config,
    /// Broker to which change events are published.
    pub events: palisade_events::Config,
    /// Trusted issuers of tokens.
    pub auth: auth::Config,
    /// Registration of this service for service discovery.
    pub registration: registration::Config,
    /// gRPC server and its limits.
    pub server: server::Config,
    /// Traces and logs.
    pub telemetry: telemetry::Config,
}

/// Product store.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Connection string: `mongodb://…/database` or `sqlite://path`.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretString>,
    /// File with the connection string, for URLs that contain a password.
    pub url_file: Option<PathBuf>,
    /// Timeout of one store operation, milliseconds.
    pub timeout_ms: u64,
}

impl Store {
    /// Returns the connection string, from the setting or its file.
    pub fn url(&self) -> Result<SecretString, Error> {
        config::secret(("store.url", &self.url), ("store.url_file", &self.url_file))
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: None, url_file: None, timeout_ms: 4_000 }
    }
}

/// Stock reservations.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reservations {
    /// TTL of an unconfirmed hold, milliseconds. The units are released afterwards. Must be well
    /// above the deadline of an order saga.
    pub hold_ttl_ms: u64,
    /// Interval between searches for expired holds, milliseconds.
    pub sweep_interval_ms: u64,
}

impl Default for Reservations {
    fn default() -> Self {
        Self { hold_ttl_ms: 900_000, sweep_interval_ms: 1_000 }
    }
}

/// Searches by text.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// Maximum number of concurrent searches. Further ones wait, so that they do not slow down
    /// other requests.
    pub max_concurrent: u32,
    /// Maximum wait of a search for its turn, milliseconds. It is rejected afterwards.
    pub max_wait_ms: u64,
}

impl Default for Search {
    fn default() -> Self {
        Self { max_concurrent: 2, max_wait_ms: 500 }
    }
}

/// Periodic stock audit.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Pause between two audits, seconds; at least 19 times the duration of the last one, because
    /// an audit reads all products and all open reservations. 0 disables periodic audits; the admin
    /// route still runs them on demand.
    pub interval_s: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { interval_s: 60 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9465)),
            store: Store::default(),
            reservations: Reservations::default(),
            search: Search::default(),
            audit: Audit::default(),
            events: palisade_events::Config::default(),
            jobs: jobs::Config::default(),
            auth: auth::Config::default(),
            registration: registration::Config::default(),
            server: server::Config::default(),
            telemetry: telemetry::Config::default(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Error> {
        self.server.validate()?;
        self.telemetry.validate()?;
        self.registration.validate(self.listen).map_err(|error| Error::rule("registration", error.to_string()))?;
        self.events.validate()?;
        self.jobs.validate()?;
        let positive = [
            ("store.timeout_ms", self.store.timeout_ms),
            ("reservations.hold_ttl_ms", self.reservations.hold_ttl_ms),
            ("reservations.sweep_interval_ms", self.reservations.sweep_interval_ms),
            ("search.max_concurrent", self.search.max_concurrent.into()),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Error::rule(key, "must be greater than 0")),
            None => Ok(()),
        }
    }
}

impl ServiceConfig for Config {
    const COMMON_SETTINGS: &'static [&'static str] = &[
        "listen",
        "admin_listen",
        "store.url",
        "store.url_file",
        "reservations.hold_ttl_ms",
        "events.nats_url",
        "registration.url",
        "telemetry.otlp_endpoint",
        "telemetry.sample_ratio",
        "telemetry.log_filter",
    ];

    fn check(&self) -> anyhow::Result<()> {
        if !crate::store::is_supported_url(self.store.url()?.expose_secret()) {
            // The error does not quote the URL: it may contain a password.
            return Err(Error::rule("store.url", "must be a connection string of a supported store").into());
        }
        self.events.url()?;
        self.auth.verifier("products", Arc::new(SystemClock), client::jwks::connect)?;
        Ok(())
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }

    fn server(&self) -> &server::Config {
        &self.server
    }

    fn admin_listen(&self) -> SocketAddr {
        self.admin_listen
    }
}

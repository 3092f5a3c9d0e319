//! Configuration of the orders service.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use palisade_middleware::{
    auth::{self, Keys},
    client,
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

/// Orders service.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listen address of the gRPC port.
    pub listen: SocketAddr,
    /// Listen address of the admin port: health, metrics and saga administration. Keep it private.
    pub admin_listen: SocketAddr,
    /// Order store.
    pub store: Store,
    /// Saga.
    pub saga: Saga,
    /// Event broker for order changes.
    pub events: palisade_events::Config,
    /// Order watch streams.
    pub watch: Watch,
    /// Periodic invariant audit.
    pub audit: Audit,
    /// Background jobs.
    pub jobs: jobs::Config,
    /// Called services.
    pub upstreams: Upstreams,
    /// Signing key for calls to products.
    pub identity: auth::Identity,
    /// Accepted token issuers and keys.
    pub auth: auth::Config,
    /// Registration in service discovery.
    pub registration: registration::Config,
    /// Limits of the gRPC server.
    pub server: server::Config,
    /// Traces and logs.
    pub telemetry: telemetry::Config,
}

/// Order store.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Connection string, `postgres://…` or `sqlite://path`. A PostgreSQL URL names one host. For
    /// failover, name a DNS record, a virtual IP or a proxy that follows the primary.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretString>,
    /// File with the connection string, for connection strings that contain a password.
    pub url_file: Option<PathBuf>,
    /// Maximum connections to the database server.
    pub max_connections: u32,
    /// Maximum duration of one store call, milliseconds. The call fails afterwards.
    pub timeout_ms: u64,
    /// Migrate the schema at start-up. Safe with several replicas; `false` if a separate job does
    /// it.
    pub migrate: bool,
}

impl Store {
    /// Returns the connection string from `url` or `url_file`.
    pub fn url(&self) -> Result<SecretString, Error> {
        config::secret(("store.url", &self.url), ("store.url_file", &self.url_file))
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: None, url_file: None, max_connections: 20, timeout_ms: 4_000, migrate: true }
    }
}

/// Saga.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Saga {
    /// Maximum time for which an order may stay PENDING, milliseconds. It fails with
    /// `products_unavailable` afterwards.
    pub deadline_ms: u64,
    /// Lease duration of a process on an order, milliseconds. It is extended while the saga runs.
    /// After a crash another process claims the order when the lease expires.
    pub lease_ms: u64,
    /// Maximum time for which `CreateOrder` waits for the saga, milliseconds. It returns the
    /// PENDING order afterwards.
    pub inline_wait_ms: u64,
    /// Interval at which the worker polls for due orders, milliseconds.
    pub poll_interval_ms: u64,
    /// Maximum number of orders that a worker processes concurrently.
    pub batch: u32,
    /// Retention of published events in the outbox, hours.
    pub event_retention_hours: u64,
}

impl Default for Saga {
    fn default() -> Self {
        Self { deadline_ms: 600_000, lease_ms: 4_000, inline_wait_ms: 5_000, poll_interval_ms: 500, batch: 32, event_retention_hours: 168 }
    }
}

/// Order watch streams.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// Interval at which watched orders are polled, ±20 %, milliseconds. Bounds the delay of a
    /// change whose notification was lost.
    pub poll_interval_ms: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { poll_interval_ms: 1_000 }
    }
}

/// Periodic invariant audit.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Pause between two audits, seconds; at least 19 times the duration of the last audit. 0
    /// disables periodic audits; audits on the admin port remain available.
    pub interval_s: u64,
    /// Age limit of audited orders, hours. Older orders are skipped. 0 audits all orders, which
    /// takes longer the more orders are stored.
    pub lookback_hours: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { interval_s: 60, lookback_hours: 24 }
    }
}

/// Called services.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstreams {
    /// Products service. Its `url` defaults to `http://127.0.0.1:5000`.
    pub products: client::Config,
}

impl Upstreams {
    /// Returns the client configuration for products, including the default URL.
    pub fn products(&self) -> client::Config {
        self.products.clone().with_default_url("http://127.0.0.1:5000").for_own_server()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5001)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9466)),
            store: Store::default(),
            saga: Saga::default(),
            events: palisade_events::Config::default(),
            jobs: jobs::Config::default(),
            watch: Watch::default(),
            audit: Audit::default(),
            upstreams: Upstreams::default(),
            identity: auth::Identity::default(),
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
        self.upstreams.products().validate().map_err(|error| Error::rule("upstreams.products", error.to_string()))?;
        let positive = [
            ("store.timeout_ms", self.store.timeout_ms),
            ("store.max_connections", self.store.max_connections.into()),
            ("saga.deadline_ms", self.saga.deadline_ms),
            ("saga.lease_ms", self.saga.lease_ms),
            ("saga.poll_interval_ms", self.saga.poll_interval_ms),
            ("saga.batch", self.saga.batch.into()),
            ("watch.poll_interval_ms", self.watch.poll_interval_ms),
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
        "upstreams.products.url",
        "identity.signing_key_file",
        "events.nats_url",
        "telemetry.otlp_endpoint",
        "telemetry.sample_ratio",
        "telemetry.log_filter",
    ];

    fn check(&self) -> anyhow::Result<()> {
        if !crate::store::is_supported_url(self.store.url()?.expose_secret()) {
            // The value is not part of the message: it may contain a password.
            return Err(Error::rule("store.url", "must be a connection string of a supported store").into());
        }
        self.upstreams.products().tls.check()?;
        self.events.url()?;
        Keys::read(&self.auth, "orders", &self.identity, Arc::new(SystemClock), client::jwks::connect)?;
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

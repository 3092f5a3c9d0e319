//! Configuration of the orders service.

use std::{net::SocketAddr, path::PathBuf};

use palisade_middleware::{
    admin::AdminHosts,
    auth, client,
    config::{self, SecretUrl, Validate},
    discovery::registration,
    jobs,
    process::ServiceConfig,
    server,
    setting::Invalid,
    telemetry,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rule for `store.url`.
const UNSUPPORTED_STORE: &str = "must be postgres://user:password@host/database or sqlite://path";

/// Orders service.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listen address of the gRPC port.
    pub listen: SocketAddr,
    /// Listen address of the admin port: health, metrics and saga administration. Keep it private.
    pub admin_listen: SocketAddr,
    /// Host names of the admin port, separated by commas. IP addresses and `localhost` need no
    /// entry. Requests with another `Host`, and requests of pages of another origin, are rejected,
    /// because a browser near the port may have been tricked into sending them.
    pub admin_hosts: String,
    /// Order store.
    pub store: Store,
    /// Saga.
    pub saga: Saga,
    /// Retention of orders.
    pub retention: Retention,
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
    pub url: Option<SecretUrl>,
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
    pub fn url(&self) -> Result<SecretUrl, Invalid> {
        config::secret_url(("store.url", &self.url), ("store.url_file", &self.url_file))
    }

    /// Returns the error of a connection string that is not supported.
    fn check(&self) -> Result<(), Invalid> {
        let key = if self.url.is_some() { "store.url" } else { "store.url_file" };
        // The value is not part of the message: it may contain a password.
        match self.url()? {
            url if crate::store::is_supported_url(url.expose()) => Ok(()),
            _ => Err(Invalid::new(key, UNSUPPORTED_STORE)),
        }
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

/// Retention of settled orders: in a final status, with no release, fulfilment or publication
/// pending. Their lines, history and events are deleted with them.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Retention of FAILED orders after their last status change, days. 0 keeps them for ever.
    pub failed_days: u32,
    /// Retention of COMPLETED and CANCELLED orders after their last status change, days, also of
    /// removed ones. 0 keeps them for ever.
    pub ended_days: u32,
    /// Existing directory to which orders are written before they are deleted, one file of
    /// newline-delimited JSON per day. Nothing is deleted while it cannot be written. Unset: no
    /// archive.
    pub archive_dir: Option<PathBuf>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { failed_days: 30, ended_days: 730, archive_dir: None }
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
            admin_hosts: String::new(),
            store: Store::default(),
            saga: Saga::default(),
            retention: Retention::default(),
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
    fn validate(&self) -> Vec<Invalid> {
        let zero = config::not_zero([
            ("store.timeout_ms", self.store.timeout_ms),
            ("store.max_connections", self.store.max_connections.into()),
            ("saga.deadline_ms", self.saga.deadline_ms),
            ("saga.lease_ms", self.saga.lease_ms),
            ("saga.poll_interval_ms", self.saga.poll_interval_ms),
            ("saga.batch", self.saga.batch.into()),
            ("watch.poll_interval_ms", self.watch.poll_interval_ms),
        ]);
        let upstream = self.upstreams.products().validate().err();
        let registration = self.registration.validate(self.listen).err();
        let mut invalid: Vec<_> = zero.collect();
        invalid.extend(self.server.validate().err());
        invalid.extend(self.telemetry.validate());
        invalid.extend(registration.map(|error| config::in_section("registration", &error)));
        invalid.extend(self.events.validate());
        invalid.extend(self.jobs.validate().err());
        invalid.extend(upstream.map(|error| config::in_section("upstreams.products", &error)));
        invalid.extend(self.auth.validate());
        invalid.extend(config::distinct_listeners(&[("listen", self.listen), ("admin_listen", self.admin_listen)]));
        invalid.extend(AdminHosts::parse(&self.admin_hosts).err());
        invalid
    }

    fn check(&self) -> Vec<Invalid> {
        let mut invalid = self.check_shared();
        if self.store.url.is_none() && self.store.url_file.is_none() {
            invalid.extend(self.store.url().err());
        }
        let tls = self.upstreams.products.tls.check().err();
        invalid.extend(tls.map(|error| error.in_section("upstreams.products")));
        invalid.extend(self.identity.signing_key().err());
        invalid.extend(self.auth.issuers.is_empty().then(auth::Config::no_issuer));
        invalid.extend(self.telemetry.check());
        invalid
    }
}

impl Config {
    /// As [`Validate::check`], for a process that brings its own keys, store and telemetry.
    pub fn check_shared(&self) -> Vec<Invalid> {
        let has_store = self.store.url.is_some() || self.store.url_file.is_some();
        let mut invalid: Vec<_> = has_store.then(|| self.store.check().err()).flatten().into_iter().collect();
        invalid.extend(self.server.tls.check().err().map(|error| error.in_section("server")));
        invalid.extend(self.events.check());
        invalid.extend(self.auth.check());
        invalid
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

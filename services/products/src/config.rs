//! Configuration of the products service.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use palisade_middleware::{
    admin::AdminHosts,
    auth,
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

/// Least retention of ledger entries, days. A call in flight must never outlive it.
const MIN_LEDGER_DAYS: u64 = 7;
/// Rule for `store.url`.
const UNSUPPORTED_STORE: &str = "must be mongodb://host/database, mongodb+srv://… or sqlite://path";

/// Products service.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listen address of the gRPC port.
    pub listen: SocketAddr,
    /// Listen address of the admin port: health, metrics, stock audit and operator routes. Keep it
    /// private.
    pub admin_listen: SocketAddr,
    /// Host names of the admin port, separated by commas. IP addresses and `localhost` need no
    /// entry. Requests with another `Host`, and requests of pages of another origin, are rejected,
    /// because a browser near the port may have been tricked into sending them.
    pub admin_hosts: String,
    /// Product store.
    pub store: Store,
    /// Stock reservations.
    pub reservations: Reservations,
    /// Stock ledger.
    pub ledger: Ledger,
    /// Searches by text.
    pub search: Search,
    /// Periodic stock audit.
    pub audit: Audit,
    /// Background jobs.
    pub jobs: jobs::Config,
    /// Event broker for product changes.
    pub events: palisade_events::Config,
    /// Accepted token issuers and keys.
    pub auth: auth::Config,
    /// Registration in service discovery.
    pub registration: registration::Config,
    /// Limits of the gRPC server.
    pub server: server::Config,
    /// Traces and logs.
    pub telemetry: telemetry::Config,
}

/// Product store.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Connection string: `mongodb://…/database` or `sqlite://path`.
    pub url: Option<SecretUrl>,
    /// File with the connection string, for URLs that contain a password.
    pub url_file: Option<PathBuf>,
    /// Timeout of one store operation, milliseconds.
    pub timeout_ms: u64,
}

impl Store {
    /// Returns the connection string, from the setting or its file.
    pub fn url(&self) -> Result<SecretUrl, Invalid> {
        config::secret_url(("store.url", &self.url), ("store.url_file", &self.url_file))
    }

    /// Returns the error of a connection string that is not supported.
    fn check(&self) -> Result<(), Invalid> {
        let key = if self.url.is_some() { "store.url" } else { "store.url_file" };
        // The value is not part of the message: it may contain a password.
        match self.url()? {
            url if crate::store::database_of(url.expose()).is_some() => Ok(()),
            _ => Err(Invalid::new(key, UNSUPPORTED_STORE)),
        }
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
    /// Retention of reservations that own no units any more (refused, released, expired or
    /// fulfilled), hours. Must be far above the deadline of an order saga, because a deleted
    /// reservation no longer rejects a late reserve. 0 keeps them for ever.
    pub retention_hours: u64,
}

impl Reservations {
    /// Returns the retention of settled reservations. `None` keeps them for ever.
    pub fn retention(&self) -> Option<Duration> {
        (self.retention_hours > 0).then(|| Duration::from_secs(self.retention_hours.saturating_mul(3_600)))
    }
}

impl Default for Reservations {
    fn default() -> Self {
        Self { hold_ttl_ms: 900_000, sweep_interval_ms: 1_000, retention_hours: 720 }
    }
}

/// Stock ledger.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// Retention of ledger entries, days, at least 7. Older entries of a product are replaced by
    /// one `opening` entry of their sum. 0 keeps them for ever.
    pub retention_days: u64,
}

impl Ledger {
    /// Returns the retention of ledger entries. `None` keeps them for ever.
    pub fn retention(&self) -> Option<Duration> {
        (self.retention_days > 0).then(|| Duration::from_secs(self.retention_days.saturating_mul(86_400)))
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self { retention_days: 400 }
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
            admin_hosts: String::new(),
            store: Store::default(),
            reservations: Reservations::default(),
            ledger: Ledger::default(),
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
    fn validate(&self) -> Vec<Invalid> {
        let zero = config::not_zero([
            ("store.timeout_ms", self.store.timeout_ms),
            ("reservations.hold_ttl_ms", self.reservations.hold_ttl_ms),
            ("reservations.sweep_interval_ms", self.reservations.sweep_interval_ms),
            ("search.max_concurrent", self.search.max_concurrent.into()),
        ]);
        let registration = self.registration.validate(self.listen).err();
        let mut invalid: Vec<_> = zero.collect();
        if (1..MIN_LEDGER_DAYS).contains(&self.ledger.retention_days) {
            invalid.push(Invalid::new("ledger.retention_days", "must be 0 or at least 7"));
        }
        invalid.extend(self.server.validate().err());
        invalid.extend(self.telemetry.validate());
        invalid.extend(registration.map(|error| config::in_section("registration", &error)));
        invalid.extend(self.events.validate());
        invalid.extend(self.jobs.validate().err());
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
        "reservations.hold_ttl_ms",
        "events.nats_url",
        "registration.url",
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

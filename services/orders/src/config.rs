//! Everything that can be set of the orders service.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use palisade_middleware::{
    auth::{self, Keys},
    client,
    clock::SystemClock,
    config::{self, Error, Validate},
    discovery::registration,
    process::ServiceConfig,
    server, telemetry,
};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// The orders service.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// gRPC address.
    pub listen: SocketAddr,
    /// Address for health, metrics and the saga's tools. Keep it from the public.
    pub admin_listen: SocketAddr,
    /// Where orders are kept.
    pub store: Store,
    /// The saga.
    pub saga: Saga,
    /// Who is told of changes.
    pub events: palisade_events::Config,
    /// Those who watch orders.
    pub watch: Watch,
    /// The check of the invariants.
    pub audit: Audit,
    /// The services that orders calls.
    pub upstreams: Upstreams,
    /// The key that signs calls to products.
    pub identity: auth::Identity,
    /// Whose tokens are believed.
    pub auth: auth::Config,
    /// Where callers are told of this service.
    pub registration: registration::Config,
    /// Limits of the gRPC port.
    pub server: server::Config,
    /// Traces and logs.
    pub telemetry: telemetry::Config,
}

/// Where orders are kept.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `postgres://…` or `sqlite://path`.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretString>,
    /// File with the URL, for URLs that hold a password.
    pub url_file: Option<PathBuf>,
    /// Most connections to the database server.
    pub max_connections: u32,
    /// Longest time of one call to the store, milliseconds.
    pub timeout_ms: u64,
    /// Bring the schema up to date at the start. Safe with several replicas; `false` if a job does it.
    pub migrate: bool,
}

impl Store {
    /// The connection string, wherever it is.
    pub fn url(&self) -> Result<SecretString, Error> {
        config::secret(("store.url", &self.url), ("store.url_file", &self.url_file))
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: None, url_file: None, max_connections: 20, timeout_ms: 4_000, migrate: true }
    }
}

/// The saga.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Saga {
    /// An order still PENDING after this long fails with `products_unavailable`, milliseconds.
    pub deadline_ms: u64,
    /// How long an order belongs to whoever took it up, milliseconds.
    pub lease_ms: u64,
    /// How long `CreateOrder` waits for the end before it answers PENDING, milliseconds.
    pub inline_wait_ms: u64,
    /// How often the worker looks for due orders, milliseconds.
    pub poll_interval_ms: u64,
    /// Orders that the worker takes up at once.
    pub batch: u32,
    /// How long events are kept that were published, hours.
    pub event_retention_hours: u64,
}

impl Default for Saga {
    fn default() -> Self {
        Self { deadline_ms: 600_000, lease_ms: 15_000, inline_wait_ms: 5_000, poll_interval_ms: 500, batch: 32, event_retention_hours: 168 }
    }
}

/// Those who watch orders.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// How often watched orders are looked at, in case that nothing told of a change; 20 % more or less. Milliseconds.
    pub poll_interval_ms: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { poll_interval_ms: 1_000 }
    }
}

/// The check of the invariants that goes on beside the work.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// How long the pause is between two checks, seconds; 19 times as long as the last one took if that is longer. 0 for none but those that
    /// somebody asks for on the admin port.
    pub interval_s: u64,
    /// How far back it goes: orders that were made before are left out. Hours; 0 for all that are stored, which takes the longer the more there are.
    pub lookback_hours: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { interval_s: 60, lookback_hours: 24 }
    }
}

/// The services that orders calls.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstreams {
    /// The products service; at `http://127.0.0.1:5000` unless its `url` is set.
    pub products: client::Config,
}

impl Upstreams {
    /// How products is called.
    pub fn products(&self) -> client::Config {
        self.products.clone().with_default_url("http://127.0.0.1:5000")
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
        self.upstreams.products().validate().map_err(|error| Error::rule("upstreams.products", error.to_string()))?;
        let positive = [
            ("store.timeout_ms", self.store.timeout_ms),
            ("store.max_connections", self.store.max_connections.into()),
            ("saga.deadline_ms", self.saga.deadline_ms),
            ("saga.lease_ms", self.saga.lease_ms),
            ("saga.poll_ms", self.saga.poll_interval_ms),
            ("saga.batch", self.saga.batch.into()),
            ("watch.poll_ms", self.watch.poll_interval_ms),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Error::rule(key, "must be greater than 0")),
            None => Ok(()),
        }
    }
}

impl ServiceConfig for Config {
    fn check(&self) -> anyhow::Result<()> {
        if !crate::store::is_supported_url(self.store.url()?.expose_secret()) {
            // Not repeated: it may hold a password.
            return Err(Error::rule("store.url", "is no connection string of a known store").into());
        }
        self.upstreams.products().tls.check()?;
        self.events.url()?;
        Keys::read(&self.auth, "orders", &self.identity, Arc::new(SystemClock))?;
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

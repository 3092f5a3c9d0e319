//! Everything that can be set of the products service.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use palisade_middleware::{
    auth,
    clock::SystemClock,
    config::{self, Error, Validate},
    discovery::registration,
    process::ServiceConfig,
    server, telemetry,
};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// The products service.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// gRPC address.
    pub listen: SocketAddr,
    /// Address for health, metrics and the stock check. Keep it from the public.
    pub admin_listen: SocketAddr,
    /// Where products are kept.
    pub store: Store,
    /// Stock that is set aside.
    pub reservations: Reservations,
    /// The check of the stock.
    pub audit: Audit,
    /// Who is told of changes.
    pub events: palisade_events::Config,
    /// Whose tokens are believed.
    pub auth: auth::Config,
    /// Where callers are told of this service.
    pub registration: registration::Config,
    /// Limits of the gRPC port.
    pub server: server::Config,
    /// Traces and logs.
    pub telemetry: telemetry::Config,
}

/// Where products are kept.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `mongodb://…/database` or `sqlite://path`.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretString>,
    /// File with the URL, for URLs that hold a password.
    pub url_file: Option<PathBuf>,
    /// Longest time of one call to the store, milliseconds.
    pub timeout_ms: u64,
}

impl Store {
    /// The connection string, wherever it is.
    pub fn url(&self) -> Result<SecretString, Error> {
        config::secret(("store.url", &self.url), ("store.url_file", &self.url_file))
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: None, url_file: None, timeout_ms: 4_000 }
    }
}

/// Stock that is set aside.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reservations {
    /// A hold that is not confirmed for this long is given back, milliseconds. Well above the deadline of a saga.
    pub hold_ttl_ms: u64,
    /// How often expired holds are looked for, milliseconds.
    pub sweep_interval_ms: u64,
}

impl Default for Reservations {
    fn default() -> Self {
        Self { hold_ttl_ms: 900_000, sweep_interval_ms: 1_000 }
    }
}

/// The check of the stock that goes on beside the work.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// How long the pause is between two checks, seconds; 19 times as long as the last one took if that is longer: each reads all products and
    /// all open reservations. 0 for none but those that somebody asks for on the admin port.
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
            audit: Audit::default(),
            events: palisade_events::Config::default(),
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
        let positive = [
            ("store.timeout_ms", self.store.timeout_ms),
            ("reservations.hold_ms", self.reservations.hold_ttl_ms),
            ("reservations.sweep_ms", self.reservations.sweep_interval_ms),
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
        self.events.url()?;
        self.auth.verifier("products", Arc::new(SystemClock))?;
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

//! Settings of all three services in one process; embedded stores and a development key by default.

use std::{net::SocketAddr, path::PathBuf};

use palisade_middleware::{
    auth,
    config::{Error, Validate},
    process::ServiceConfig,
    server, telemetry,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the all-in-one process.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Directory of the embedded stores and the development key.
    pub(crate) data_dir: PathBuf,
    /// Gateway settings.
    pub(crate) gateway: palisade_gateway::Config,
    /// Products service settings.
    pub(crate) products: palisade_products::Config,
    /// Orders service settings.
    pub(crate) orders: palisade_orders::Config,
    /// Traces and logs of the process. Replaces the `telemetry` settings of the services.
    pub(crate) telemetry: telemetry::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("palisade-data"),
            gateway: palisade_gateway::Config::default(),
            products: palisade_products::Config::default(),
            orders: palisade_orders::Config::default(),
            telemetry: telemetry::Config::default(),
        }
    }
}

impl Config {
    /// Whether the gateway trusts the development key: only if no issuer is configured.
    pub(crate) fn uses_development_key(&self) -> bool {
        self.gateway.auth.issuers.is_empty()
    }
}

impl Config {
    /// Rejects service settings that are process-wide here. Accepting them silently would suggest
    /// that they take effect.
    fn reject_ignored_keys(&self) -> Result<(), Error> {
        let services = [
            ("gateway.telemetry", &self.gateway.telemetry, "gateway.identity.signing_key_file", &self.gateway.identity),
            ("orders.telemetry", &self.orders.telemetry, "orders.identity.signing_key_file", &self.orders.identity),
            ("products.telemetry", &self.products.telemetry, "", &auth::Identity::default()),
        ];
        let ignored_tls = [
            ("products.server.tls.cert_file", self.products.server.tls.is_on()),
            ("orders.server.tls.cert_file", self.orders.server.tls.is_on()),
            ("orders.upstreams.products.tls.ca_file", self.orders.upstreams.products.tls.is_on()),
            ("gateway.upstreams.products.tls.ca_file", self.gateway.upstreams.products.tls.is_on()),
            ("gateway.upstreams.orders.tls.ca_file", self.gateway.upstreams.orders.tls.is_on()),
        ];
        if let Some((key, _)) = ignored_tls.into_iter().find(|(_, is_on)| *is_on) {
            return Err(Error::rule(key, "has no effect in the all-in-one process, its services communicate over loopback without TLS"));
        }
        for (telemetry_key, telemetry, identity_key, identity) in services {
            if *telemetry != telemetry::Config::default() {
                return Err(Error::rule(telemetry_key, "has no effect in the all-in-one process, set the top-level telemetry instead"));
            }
            if identity.signing_key_file.is_some() {
                return Err(Error::rule(
                    identity_key,
                    "has no effect in the all-in-one process, its services generate their keys at startup",
                ));
            }
        }
        Ok(())
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Error> {
        self.gateway.validate()?;
        self.products.validate()?;
        self.orders.validate()?;
        self.telemetry.validate()?;
        let listeners =
            [("gateway.listen", self.gateway.listen), ("products.listen", self.products.listen), ("orders.listen", self.orders.listen)];
        self.reject_ignored_keys()?;
        let exposed = listeners.into_iter().find(|(_, address)| !address.ip().is_loopback());
        match exposed {
            Some((key, address)) if self.uses_development_key() => Err(Error::rule(
                key,
                format!(
                    "{address} is not a loopback address, but the development key is for loopback only: configure gateway.auth.issuers"
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl ServiceConfig for Config {
    const COMMON_SETTINGS: &'static [&'static str] = &[
        "data_dir",
        "gateway.listen",
        "gateway.admin_listen",
        "products.store.url",
        "orders.store.url",
        "gateway.cache.ttl_ms",
        "gateway.server.rate_limit.per_second",
        "telemetry.otlp_endpoint",
        "telemetry.sample_ratio",
        "telemetry.log_filter",
    ];

    fn check(&self) -> anyhow::Result<()> {
        let all = [(&self.gateway.auth, palisade_gateway::AUDIENCE), (&self.products.auth, "products"), (&self.orders.auth, "orders")];
        for (auth, audience) in all {
            auth.issuers(audience, palisade_middleware::client::jwks::connect)?;
            auth.revocations()?;
        }
        Ok(())
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }

    fn server(&self) -> &server::Config {
        &self.gateway.server
    }

    fn admin_listen(&self) -> SocketAddr {
        self.gateway.admin_listen
    }
}

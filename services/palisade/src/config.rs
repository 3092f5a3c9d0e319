//! The configuration of all three services, with the embedded stores and the development key filled in.

use std::{net::SocketAddr, path::PathBuf};

use palisade_middleware::{
    auth,
    config::{Error, Validate},
    process::ServiceConfig,
    server, telemetry,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything in one process.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the stores and the development key are kept.
    pub(crate) data_dir: PathBuf,
    /// The gateway.
    pub(crate) gateway: palisade_gateway::Config,
    /// The products service.
    pub(crate) products: palisade_products::Config,
    /// The orders service.
    pub(crate) orders: palisade_orders::Config,
    /// Traces and logs of the process, instead of one for each service.
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
    /// Whether the development key would sign for the gateway: nobody else is believed.
    pub(crate) fn uses_development_key(&self) -> bool {
        self.gateway.auth.issuers.is_empty()
    }
}

impl Config {
    /// What can be set of a service alone, but is one for the whole process here. To accept it in silence would be to promise something.
    fn reject_ignored_keys(&self) -> Result<(), Error> {
        let services = [
            ("gateway.telemetry", &self.gateway.telemetry, "gateway.identity.key_file", &self.gateway.identity),
            ("orders.telemetry", &self.orders.telemetry, "orders.identity.key_file", &self.orders.identity),
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
            return Err(Error::rule(key, "is of no effect here, the services of one process talk over its own loopback in plain text"));
        }
        for (telemetry_key, telemetry, identity_key, identity) in services {
            if *telemetry != telemetry::Config::default() {
                return Err(Error::rule(telemetry_key, "is of no effect here, set telemetry of the whole process"));
            }
            if identity.signing_key_file.is_some() {
                return Err(Error::rule(identity_key, "is of no effect here, the services of one process make their keys at the start"));
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
                    "{address} is not a loopback address, and the development key serves loopback only: configure gateway.auth.issuers first"
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl ServiceConfig for Config {
    fn check(&self) -> anyhow::Result<()> {
        let all = [(&self.gateway.auth, palisade_gateway::AUDIENCE), (&self.products.auth, "products"), (&self.orders.auth, "orders")];
        for (auth, audience) in all {
            auth.issuers(audience)?;
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

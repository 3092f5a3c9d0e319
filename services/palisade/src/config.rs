//! The configuration of all three services, with the embedded stores and the development key filled in.

use std::{net::SocketAddr, path::PathBuf};

use palisade_middleware::{
    config::{Error, Validate},
    process::Program,
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
    /// Traces and logs of the process; those of the services are not used.
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

impl Validate for Config {
    fn validate(&self) -> Result<(), Error> {
        self.gateway.validate()?;
        self.products.validate()?;
        self.orders.validate()?;
        let listeners =
            [("gateway.listen", self.gateway.listen), ("products.listen", self.products.listen), ("orders.listen", self.orders.listen)];
        let open = listeners.into_iter().find(|(_, address)| !address.ip().is_loopback());
        match open {
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

impl Program for Config {
    fn check(&self) -> anyhow::Result<()> {
        self.gateway.auth.issuers(palisade_gateway::AUDIENCE)?;
        self.products.auth.issuers("products")?;
        self.orders.auth.issuers("orders")?;
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

//! Settings of all three services in one process; embedded stores and a development key by default.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use palisade_middleware::{
    config::{self, SecretUrl, Validate},
    process::ServiceConfig,
    server,
    setting::Invalid,
    telemetry,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data_dir::{self, DEV_ISSUER};

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
    /// Console at `/console` on the admin port of the gateway. Keeps recent traces in memory, and
    /// while the development key is in use, enables fault injection in all services.
    pub(crate) console: bool,
    /// Traces and logs of the process. Replaces the `telemetry` settings of the services.
    pub(crate) telemetry: telemetry::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("palisade-data"),
            console: true,
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

    /// Enables fault injection for the console: with the development key, which serves loopback
    /// addresses only, and if no admin port is reachable from elsewhere.
    pub(crate) fn set_fault_injection(&mut self) {
        let admin = [self.gateway.admin_listen, self.products.admin_listen, self.orders.admin_listen];
        if self.console && self.uses_development_key() && admin.iter().all(|address| address.ip().is_loopback()) {
            for server in [&mut self.gateway.server, &mut self.products.server, &mut self.orders.server] {
                server.fault_injection.enabled = true;
            }
        }
    }

    /// Sets the embedded stores in the data directory for services without a configured store.
    pub(crate) fn set_default_stores(&mut self) {
        let products = &mut self.products.store;
        set_default_store(&mut products.url, products.url_file.is_some(), &self.data_dir, "products.db");
        let orders = &mut self.orders.store;
        set_default_store(&mut orders.url, orders.url_file.is_some(), &self.data_dir, "orders.db");
    }
}

/// Reason why services have no keys of their own here.
const GENERATED_KEYS: &str = "the services of this process generate their keys at startup";
/// Reason why services have no telemetry of their own here.
const COMMON_TELEMETRY: &str = "set the top-level telemetry instead";
/// Reason why the calls between services need no address and no TLS here.
const LOOPBACK: &str = "the services of this process call each other over loopback, without TLS";
/// Reason why only one service determines the shutdown.
const COMMON_SHUTDOWN: &str = "set gateway.server.lame_duck_ms, the process shuts down once";

impl Validate for Config {
    const INEFFECTIVE: &'static [(&'static str, &'static str)] = &[
        ("gateway.telemetry", COMMON_TELEMETRY),
        ("products.telemetry", COMMON_TELEMETRY),
        ("orders.telemetry", COMMON_TELEMETRY),
        ("gateway.identity", GENERATED_KEYS),
        ("orders.identity", GENERATED_KEYS),
        ("gateway.upstreams.products.url", LOOPBACK),
        ("gateway.upstreams.products.tls", LOOPBACK),
        ("gateway.upstreams.orders.url", LOOPBACK),
        ("gateway.upstreams.orders.tls", LOOPBACK),
        ("orders.upstreams.products.url", LOOPBACK),
        ("orders.upstreams.products.tls", LOOPBACK),
        ("products.server.tls", LOOPBACK),
        ("orders.server.tls", LOOPBACK),
        ("products.server.lame_duck_ms", COMMON_SHUTDOWN),
        ("orders.server.lame_duck_ms", COMMON_SHUTDOWN),
    ];

    fn validate(&self) -> Vec<Invalid> {
        let mut invalid = in_section("gateway", self.gateway.validate());
        invalid.extend(in_section("products", self.products.validate()));
        invalid.extend(in_section("orders", self.orders.validate()));
        invalid.extend(self.telemetry.validate());
        invalid.extend(self.check_issuers());
        let listeners =
            [("gateway.listen", self.gateway.listen), ("products.listen", self.products.listen), ("orders.listen", self.orders.listen)];
        let admin = [
            ("gateway.admin_listen", self.gateway.admin_listen),
            ("products.admin_listen", self.products.admin_listen),
            ("orders.admin_listen", self.orders.admin_listen),
        ];
        invalid.extend(config::distinct_listeners(&[listeners, admin].concat()));
        let exposed = listeners.into_iter().filter(|(_, address)| self.uses_development_key() && !address.ip().is_loopback());
        invalid.extend(exposed.map(|(key, address)| {
            let rule = "is not a loopback address, but the development key is for loopback only: configure gateway.auth.issuers";
            Invalid::new(key, format!("{address} {rule}"))
        }));
        invalid
    }

    fn check(&self) -> Vec<Invalid> {
        let mut invalid = in_section("gateway", self.gateway.check_shared());
        invalid.extend(in_section("products", self.products.check_shared()));
        invalid.extend(in_section("orders", self.orders.check_shared()));
        invalid.extend(self.telemetry.check());
        invalid.extend(data_dir::check(&self.data_dir).err());
        invalid
    }
}

impl Config {
    /// Checks that the services agree about the subjects of users: an issuer has one prefix, and no
    /// two issuers have the same one.
    fn check_issuers(&self) -> Vec<Invalid> {
        let mut known = Vec::new();
        if self.uses_development_key() {
            known.push(("the development key".to_owned(), DEV_ISSUER, ""));
        }
        let mut invalid = Vec::new();
        for (service, auth) in [("gateway", &self.gateway.auth), ("products", &self.products.auth), ("orders", &self.orders.auth)] {
            let users = auth.issuers.iter().filter(|(_, issuer)| !issuer.internal);
            let own: Vec<_> = users
                .map(|(name, issuer)| {
                    let iss = issuer.issuer.as_deref().unwrap_or(name);
                    (format!("{service}.auth.issuers.{name}"), iss, issuer.subject_prefix.as_str())
                })
                .collect();
            for (key, iss, prefix) in &own {
                // Those of the same service are compared by its own check.
                let clash = known.iter().find(|(_, other, other_prefix)| (other == iss) != (other_prefix == prefix));
                invalid.extend(clash.map(|(other, ..)| {
                    let rule = format!("must be the one of the same issuer, and differ from that of another issuer: compare {other}");
                    Invalid::new(format!("{key}.subject_prefix"), rule)
                }));
            }
            known.extend(own);
        }
        invalid
    }
}

fn set_default_store(url: &mut Option<SecretUrl>, in_file: bool, data_dir: &Path, file: &str) {
    if url.is_none() && !in_file {
        *url = Some(format!("sqlite://{}", data_dir.join(file).display()).into());
    }
}

fn in_section(section: &str, invalid: Vec<Invalid>) -> Vec<Invalid> {
    invalid.into_iter().map(|invalid| invalid.in_section(section)).collect()
}

impl ServiceConfig for Config {
    const COMMON_SETTINGS: &'static [&'static str] = &[
        "data_dir",
        "console",
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

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }

    fn server(&self) -> &server::Config {
        &self.gateway.server
    }

    fn admin_listen(&self) -> SocketAddr {
        self.gateway.admin_listen
    }

    fn keeps_traces(&self) -> bool {
        self.console
    }
}

#[cfg(test)]
mod tests;

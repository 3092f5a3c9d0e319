//! Configuration of the gateway.

use std::net::SocketAddr;

use palisade_middleware::{
    admin::AdminHosts,
    auth, client,
    config::{self, Validate},
    jobs,
    process::ServiceConfig,
    server,
    setting::Invalid,
    telemetry,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache;

/// Required `aud` of user tokens.
pub const AUDIENCE: &str = "palisade";

/// Gateway.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listen address of the HTTP port.
    pub listen: SocketAddr,
    /// Listen address of the admin port: health, metrics and operator routes. Keep it private.
    pub admin_listen: SocketAddr,
    /// Host names of the admin port, separated by commas. IP addresses and `localhost` need no
    /// entry. Requests with another `Host`, and requests of pages of another origin, are rejected,
    /// because a browser near the port may have been tricked into sending them.
    pub admin_hosts: String,
    /// Called services.
    pub upstreams: Upstreams,
    /// Event streams of orders (server-sent events).
    pub order_events: OrderEvents,
    /// Response cache for reads of products.
    pub cache: cache::Config,
    /// Broker of the products change events, which invalidate the cache. Only the connection
    /// settings apply. Without a URL, events are received only from products in the same process.
    pub events: palisade_events::Config,
    /// Background jobs.
    pub jobs: jobs::Config,
    /// Signing key for calls to the services.
    pub identity: auth::Identity,
    /// Accepted token issuers and keys.
    pub auth: auth::Config,
    /// Limits of the HTTP server.
    pub server: server::Config,
    /// Traces and logs.
    pub telemetry: telemetry::Config,
}

/// Event streams of orders (server-sent events).
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OrderEvents {
    /// Interval of heartbeat comments on an idle stream, milliseconds. They keep intermediaries
    /// from closing the connection.
    pub heartbeat_ms: u64,
    /// Reconnect delay sent to clients (the SSE `retry` field), milliseconds, with ±50 % jitter.
    pub client_retry_ms: u64,
    /// Maximum time to resume a stream at orders after its upstream call ended, milliseconds. The
    /// client's stream is closed afterwards.
    pub upstream_resume_timeout_ms: u64,
}

impl Default for OrderEvents {
    fn default() -> Self {
        Self { heartbeat_ms: 15_000, client_retry_ms: 2_000, upstream_resume_timeout_ms: 15_000 }
    }
}

/// Called services.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstreams {
    /// Client of the products service. Default URL: `http://127.0.0.1:5000`.
    pub products: client::Config,
    /// Client of the orders service. Default URL: `http://127.0.0.1:5001`.
    pub orders: client::Config,
}

impl Upstreams {
    /// Returns the client settings of products, with the default URL filled in.
    pub fn products(&self) -> client::Config {
        self.products.clone().with_default_url("http://127.0.0.1:5000").for_own_server()
    }

    /// Returns the client settings of orders, with the default URL filled in.
    pub fn orders(&self) -> client::Config {
        self.orders.clone().with_default_url("http://127.0.0.1:5001").for_own_server()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            admin_hosts: String::new(),
            upstreams: Upstreams::default(),
            order_events: OrderEvents::default(),
            cache: cache::Config::default(),
            events: palisade_events::Config::default(),
            jobs: jobs::Config::default(),
            identity: auth::Identity::default(),
            auth: auth::Config::default(),
            server: server::Config::default(),
            telemetry: telemetry::Config::default(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Invalid> {
        let zero = config::not_zero([
            ("order_events.heartbeat_ms", self.order_events.heartbeat_ms),
            ("order_events.client_retry_ms", self.order_events.client_retry_ms),
        ]);
        let upstream = |section: &str, client: client::Config| client.validate().err().map(|error| config::in_section(section, &error));
        let mut invalid: Vec<_> = zero.collect();
        invalid.extend(self.server.validate().err());
        invalid.extend(self.telemetry.validate());
        invalid.extend(self.cache.validate());
        invalid.extend(self.events.validate());
        invalid.extend(self.jobs.validate().err());
        invalid.extend(upstream("upstreams.products", self.upstreams.products()));
        invalid.extend(upstream("upstreams.orders", self.upstreams.orders()));
        invalid.extend(self.auth.validate());
        invalid.extend(config::distinct_listeners(&[("listen", self.listen), ("admin_listen", self.admin_listen)]));
        invalid.extend(AdminHosts::parse(&self.admin_hosts).err());
        invalid
    }

    fn check(&self) -> Vec<Invalid> {
        let mut invalid = self.check_shared();
        let tls = |section: &str, client: &client::Config| client.tls.check().err().map(|error| error.in_section(section));
        invalid.extend(tls("upstreams.products", &self.upstreams.products));
        invalid.extend(tls("upstreams.orders", &self.upstreams.orders));
        invalid.extend(self.identity.signing_key().err());
        invalid.extend(self.auth.issuers.is_empty().then(auth::Config::no_issuer));
        invalid.extend(self.telemetry.check());
        invalid
    }
}

impl Config {
    /// As [`Validate::check`], for a process that brings its own keys and telemetry.
    pub fn check_shared(&self) -> Vec<Invalid> {
        let mut invalid: Vec<_> = self.server.tls.check().err().map(|error| error.in_section("server")).into_iter().collect();
        invalid.extend(self.cache.check());
        invalid.extend(self.events.check());
        invalid.extend(self.auth.check());
        invalid
    }
}

impl ServiceConfig for Config {
    const COMMON_SETTINGS: &'static [&'static str] = &[
        "listen",
        "admin_listen",
        "upstreams.products.url",
        "upstreams.orders.url",
        "identity.signing_key_file",
        "cache.ttl_ms",
        "server.rate_limit.per_second",
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

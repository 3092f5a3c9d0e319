//! Everything that can be set of the gateway.

use std::{net::SocketAddr, sync::Arc};

use palisade_middleware::{
    auth::{self, Keys},
    client,
    clock::SystemClock,
    config::{Error, Validate},
    process::ServiceConfig,
    server, telemetry,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache;

/// The gateway.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HTTP address.
    pub listen: SocketAddr,
    /// Address for health and metrics. Keep it from the public.
    pub admin_listen: SocketAddr,
    /// The services behind the gateway.
    pub upstreams: Upstreams,
    /// Streams of an order's events.
    pub order_events: OrderEvents,
    /// Answers to reads of products that are kept for a while.
    pub cache: cache::Config,
    /// Where events of products come from, which outdate what is kept; only its address counts here. Without one they reach a gateway in the same
    /// process only.
    pub events: palisade_events::Config,
    /// The key that signs calls to them.
    pub identity: auth::Identity,
    /// Whose tokens are believed.
    pub auth: auth::Config,
    /// Limits of the HTTP port.
    pub server: server::Config,
    /// Traces and logs.
    pub telemetry: telemetry::Config,
}

/// Streams of an order's events.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OrderEvents {
    /// A stream that has nothing to say says so this often, so that nothing on the way takes it for dead, milliseconds.
    pub heartbeat_ms: u64,
    /// After how long a client opens a stream again that has ended, half as long more or less, milliseconds.
    pub client_retry_ms: u64,
    /// A stream goes on by itself when orders ends it or is started again; without an answer for so long it ends. Milliseconds.
    pub upstream_resume_timeout_ms: u64,
}

impl Default for OrderEvents {
    fn default() -> Self {
        Self { heartbeat_ms: 15_000, client_retry_ms: 2_000, upstream_resume_timeout_ms: 15_000 }
    }
}

/// The services behind the gateway.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstreams {
    /// The products service; at `http://127.0.0.1:5000` unless its `url` is set.
    pub products: client::Config,
    /// The orders service; at `http://127.0.0.1:5001` unless its `url` is set.
    pub orders: client::Config,
}

impl Upstreams {
    /// How products is called.
    pub fn products(&self) -> client::Config {
        self.products.clone().with_default_url("http://127.0.0.1:5000")
    }

    /// How orders is called.
    pub fn orders(&self) -> client::Config {
        self.orders.clone().with_default_url("http://127.0.0.1:5001")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            upstreams: Upstreams::default(),
            order_events: OrderEvents::default(),
            cache: cache::Config::default(),
            events: palisade_events::Config::default(),
            identity: auth::Identity::default(),
            auth: auth::Config::default(),
            server: server::Config::default(),
            telemetry: telemetry::Config::default(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Error> {
        self.server.validate()?;
        self.telemetry.validate()?;
        self.cache.validate()?;
        self.events.validate()?;
        let events = [("order_events.heartbeat_ms", self.order_events.heartbeat_ms), ("order_events.retry_ms", self.order_events.client_retry_ms)];
        if let Some((key, _)) = events.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::rule(key, "must be greater than 0"));
        }
        self.upstreams.products().validate().map_err(|error| Error::rule("upstreams.products", error.to_string()))?;
        self.upstreams.orders().validate().map_err(|error| Error::rule("upstreams.orders", error.to_string()))
    }
}

impl ServiceConfig for Config {
    fn check(&self) -> anyhow::Result<()> {
        self.upstreams.products().tls.check()?;
        self.upstreams.orders().tls.check()?;
        Keys::read(&self.auth, crate::AUDIENCE, &self.identity, Arc::new(SystemClock))?;
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

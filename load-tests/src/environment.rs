//! Test environment: three processes, PostgreSQL and the MongoDB-compatible server.

use std::{net::Ipv4Addr, process::Command};

use palisade_tests::{
    Shop,
    fault_proxy::FaultProxy,
    jwt,
    servers::{self, Mongo, Postgres},
};

/// Running shop with its stores. Dropping it stops everything.
#[derive(Debug)]
pub struct Environment {
    /// Services, dropped before their stores.
    pub shop: Shop,
    /// Store of orders.
    pub postgres: Postgres,
    /// Store of products.
    pub mongo: Mongo,
    /// Proxy between products and its store, if connections are limited.
    pub slow_store_proxy: Option<FaultProxy>,
}

/// Time limits of the services: deadlines, timeouts, and limits that depend on latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimits {
    /// Defaults, for runs that have the machine for themselves.
    Default,
    /// Raised far above any latency, for runs beside other work: a slow response is no failure.
    Raised,
}

impl TimeLimits {
    const SERVER: [(&str, &str); 4] = [
        ("SERVER__ADAPTIVE_LIMIT__ENABLED", "false"),
        ("SERVER__DEFAULT_DEADLINE_MS", "60000"),
        ("SERVER__MAX_DEADLINE_MS", "60000"),
        ("STORE__TIMEOUT_MS", "30000"),
    ];
    const UPSTREAM: [(&str, &str); 4] = [
        ("CALL_TIMEOUT_MS", "55000"),
        ("ATTEMPT_TIMEOUT_MS", "30000"),
        ("CONNECT_TIMEOUT_MS", "10000"),
        // The cap on concurrent retries denies more of them the slower the machine is.
        ("RETRY__IN_FLIGHT_MIN", "1000"),
    ];

    /// Configures a service.
    pub fn configure(self, service: &str, command: &mut Command) {
        if self == Self::Default {
            return;
        }
        let server = Self::SERVER.into_iter().filter(|(name, _)| service != "gateway" || !name.starts_with("STORE"));
        command.envs(server.map(|(name, value)| (format!("PALISADE_{name}"), value)));
        let upstreams: &[&str] = match service {
            "gateway" => &["PRODUCTS", "ORDERS"],
            "orders" => &["PRODUCTS"],
            _ => &[],
        };
        for upstream in upstreams {
            command.envs(Self::UPSTREAM.map(|(name, value)| (format!("PALISADE_UPSTREAMS__{upstream}__{name}"), value)));
        }
    }
}

impl Environment {
    /// Starts separate services over crash-safe stores.
    pub fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// Same as [`Self::start`], with additional flags or environment per service name.
    pub fn start_with(configure: impl Fn(&str, &mut Command)) -> Self {
        let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
        let shop = shop(&mongo.url("products"), &postgres, configure);
        Self { shop, postgres, mongo, slow_store_proxy: None }
    }

    /// Same as [`Self::start_with`], with several replicas of each service over these stores.
    pub fn start_replicated(configure: impl Fn(&str, &mut Command)) -> Self {
        let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
        let shop = Shop::replicated(&mongo.url("products"), &postgres.url("orders"), configure);
        Self { shop, postgres, mongo, slow_store_proxy: None }
    }

    /// Same as [`Self::start_with`], with a limited number of store connections of products and a
    /// proxy that can add latency.
    ///
    /// The connections then are the bottleneck shared by all requests, and requests without a
    /// connection wait.
    pub async fn start_with_connection_limit(connections: u32, configure: impl Fn(&str, &mut Command)) -> Self {
        let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
        let proxy = FaultProxy::connect_to((Ipv4Addr::LOCALHOST, mongo.port()).into()).await;
        let url = format!("mongodb://{}/products?directConnection=true&maxPoolSize={connections}", proxy.address());
        let shop = shop(&url, &postgres, configure);
        Self { shop, postgres, mongo, slow_store_proxy: Some(proxy) }
    }

    /// Returns the environment variables for a script.
    pub fn settings(&self) -> Vec<(String, String)> {
        settings(&self.shop)
    }
}

fn shop(products: &str, postgres: &Postgres, configure: impl Fn(&str, &mut Command)) -> Shop {
    Shop::separate_with(Some(products), Some(&postgres.url("orders")), |service, command| {
        trust_scripts(command);
        configure(service, command);
    })
}

/// Makes a service trust the scripts' tokens, so that scripts can call gRPC services directly.
pub fn trust_scripts(command: &mut Command) {
    command.env("PALISADE_AUTH__ISSUERS__TESTS__ISSUER", jwt::ISSUER).env("PALISADE_AUTH__ISSUERS__TESTS__SECRET", jwt::SECRET);
}

/// Returns the environment variables for a script against this shop.
pub fn settings(shop: &Shop) -> Vec<(String, String)> {
    let address = |url: String| url.trim_start_matches("http://").to_owned();
    let settings = [
        ("BASE_URL", shop.url()),
        ("PRODUCTS_GRPC", address(shop.grpc_url("products"))),
        ("ORDERS_GRPC", address(shop.grpc_url("orders"))),
        ("GATEWAY_ADMIN", shop.admin_url("gateway")),
        ("PRODUCTS_ADMIN", shop.admin_url("products")),
        ("ORDERS_ADMIN", shop.admin_url("orders")),
        ("JWT_SECRET", jwt::SECRET.to_owned()),
        ("JWT_ISSUER", jwt::ISSUER.to_owned()),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).into()
}

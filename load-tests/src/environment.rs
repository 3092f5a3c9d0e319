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
        ("PRODUCTS_ADMIN", shop.admin_url("products")),
        ("ORDERS_ADMIN", shop.admin_url("orders")),
        ("JWT_SECRET", jwt::SECRET.to_owned()),
        ("JWT_ISSUER", jwt::ISSUER.to_owned()),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).into()
}

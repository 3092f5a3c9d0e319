//! What the load falls on: three processes, PostgreSQL and the MongoDB-compatible server.

use std::{net::Ipv4Addr, process::Command};

use palisade_tests::{
    Shop,
    fault_proxy::FaultProxy,
    jwt,
    servers::{self, Mongo, Postgres},
};

/// A running shop with its stores. Dropping it stops everything.
#[derive(Debug)]
pub struct Environment {
    /// The processes; dropped before their stores.
    pub shop: Shop,
    /// What orders are kept in.
    pub postgres: Postgres,
    /// What products are kept in.
    pub mongo: Mongo,
    /// What products reaches its store through, if the way is narrow.
    pub slow_store_proxy: Option<FaultProxy>,
}

impl Environment {
    /// The services apart, over stores that survive being killed.
    pub fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// As [`Self::start`], with more flags or environment for each service, which is named.
    pub fn start_with(configure: impl Fn(&str, &mut Command)) -> Self {
        let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
        let shop = shop(&mongo.url("products"), &postgres, configure);
        Self { shop, postgres, mongo, slow_store_proxy: None }
    }

    /// As [`Self::start_with`], with several replicas of each service over these stores.
    pub fn start_replicated(configure: impl Fn(&str, &mut Command)) -> Self {
        let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
        let shop = Shop::replicated(&mongo.url("products"), &postgres.url("orders"), configure);
        Self { shop, postgres, mongo, slow_store_proxy: None }
    }

    /// As [`Self::start_with`], but products has only so many connections to its store, through a proxy that can be made slow: then they are what
    /// all requests share, and who comes when all are taken waits for one.
    pub async fn start_narrow(connections: u32, configure: impl Fn(&str, &mut Command)) -> Self {
        let (postgres, mongo) = (servers::durable_postgres(), servers::durable_mongo());
        let way = FaultProxy::connect_to((Ipv4Addr::LOCALHOST, mongo.port()).into()).await;
        let url = format!("mongodb://{}/products?directConnection=true&maxPoolSize={connections}", way.address());
        let shop = shop(&url, &postgres, configure);
        Self { shop, postgres, mongo, slow_store_proxy: Some(way) }
    }

    /// What a script must know of it.
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

/// So that scripts can call the gRPC services themselves.
pub fn trust_scripts(command: &mut Command) {
    command.env("PALISADE_AUTH__ISSUERS__TESTS__ISSUER", jwt::ISSUER).env("PALISADE_AUTH__ISSUERS__TESTS__SECRET", jwt::SECRET);
}

/// What a script must know of a shop.
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

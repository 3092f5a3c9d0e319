//! Startup of the gateway from its configuration.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{Json, routing::get};
use palisade_events::Broker;
use palisade_middleware::{
    admin,
    auth::{CredentialsLayer, InternalTokens, Keys, TokenPolicy},
    client,
    fault_injection::Faults,
    health::{self, Readiness},
    jobs::Jobs,
    method_table::MethodTable,
    process::Process,
    respond::Protocol,
    retry::MethodContracts,
    server,
};
use palisade_proto::FILE_DESCRIPTOR_SET;

use crate::{
    cache::Cache,
    callers::Callers,
    config::{AUDIENCE, Config},
    metrics,
    router::{METHODS, router},
    upstreams::Upstreams,
};

/// Reads the configured keys.
pub fn keys(config: &Config, process: &Process) -> anyhow::Result<Keys> {
    Ok(Keys::read(&config.auth, AUDIENCE, &config.identity, process.clock.clone(), client::jwks::connect)?)
}

/// Starts the gateway, which runs until the process stops. Returns its HTTP address.
pub fn start(config: &Config, keys: Keys, process: &Process) -> anyhow::Result<SocketAddr> {
    metrics::register();
    let readiness = process.readiness();
    let (products, orders) = (config.upstreams.products(), config.upstreams.orders());
    let jwks = Json(serde_json::to_value(keys.signing.public_jwks())?);
    let tokens = Arc::new(InternalTokens::new("gateway", TokenPolicy::OnBehalfOfUser, keys.signing, process.clock.clone()));
    let idempotent = MethodContracts::from_descriptors(FILE_DESCRIPTOR_SET)?;
    let products = client::connect("products", &products, idempotent.clone(), CredentialsLayer::new(tokens.clone(), "products"))?;
    let orders = client::connect("orders", &orders, idempotent, CredentialsLayer::new(tokens, "orders"))?;
    for (name, client) in [("products", &products), ("orders", &orders)] {
        let endpoints = client.endpoints().context("the client has no endpoints")?;
        // Cached responses are served without products, so its failure must not take this gateway
        // out of rotation.
        let required = name != "products" || !config.cache.serves_stale();
        let (probe, breaker) = (health::grpc_probe(endpoints.clone()), client.breaker().clone());
        readiness.watch(name, required, process.shutdown.clone(), health::on_recovery(probe, move || breaker.end_open_time()));
    }
    let breakers = admin::breakers::routes([products.breaker().clone(), orders.breaker().clone()]);
    let cache = start_cache(config, process, &readiness)?;
    let upstreams = Upstreams::new(products, orders).with_events(config.order_events).with_cache(cache);
    let methods = Arc::new(MethodTable::new(&[&METHODS, &admin::PROBES])?);
    let faults = Faults::new(&config.server.fault_injection, Protocol::Http, &methods);
    let admin_routes = breakers.merge(admin::faults::routes(faults.clone())).route("/jwks.json", get(move || async move { jwks }));
    let router = router(upstreams, Callers::new(&config.auth)).merge(admin::probes(readiness.clone()));
    let address =
        server::serve(process, ("gateway", Protocol::Http), config.listen, router, methods, keys.verifier, (&config.server, faults));
    let address = address?;
    // Last, so that no probe sees readiness before the service accepts requests.
    process.serve_admin("gateway", (config.admin_listen, &config.admin_hosts), readiness, admin_routes)?;
    Ok(address)
}

/// Starts the cache and its background tasks. Redis and NATS are reported by the readiness check
/// but not required: the cache works without them.
fn start_cache(config: &Config, process: &Process, readiness: &Readiness) -> anyhow::Result<Cache> {
    let (cache, tasks) = Cache::new(&config.cache)?;
    let Some(tasks) = tasks else { return Ok(cache) };
    if let Some(probe) = tasks.probe() {
        readiness.watch("redis", false, process.shutdown.clone(), probe);
    }
    let broker = Broker::new(&config.events)?;
    if let Some(probe) = broker.probe() {
        readiness.watch("nats", false, process.shutdown.clone(), probe);
    }
    tasks.start(&Jobs::new(process, readiness, &config.jobs), &broker);
    Ok(cache)
}

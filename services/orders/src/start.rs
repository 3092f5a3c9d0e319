//! Start-up of the orders service: builds its parts from the configuration and runs them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use palisade_events::{Broker, Relay, Topic};
use palisade_middleware::{
    auth::{CredentialsLayer, InternalTokens, Keys, Subject, TokenPolicy},
    client,
    clock::Clock,
    cursor::Cursor,
    database_clock::DatabaseClock,
    discovery::registration,
    fault_injection::Faults,
    health,
    jobs::Jobs,
    method_table::MethodTable,
    process::Process,
    respond::Protocol,
    retry::MethodContracts,
    server,
    store_instrumentation::Database,
};
use palisade_proto::{FILE_DESCRIPTOR_SET, orders::v1::orders_service_server::OrdersServiceServer};
use palisade_store::Reconnect;
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::{
    admin,
    archive::Archive,
    audit::Audit,
    background::Background,
    config::{self, Config},
    erasure::{self, Erased},
    fulfiller::Fulfiller,
    grpc::{METHODS, Orders},
    metrics,
    products::Products,
    relay::OrdersOutbox,
    repair::Repair,
    saga_executor::SagaExecutor,
    store::{InstrumentedStore, PostgresStore, SqliteStore, Store, redrive_all},
    watch::OrderWatchers,
    worker::Worker,
};

const SERVICE: &str = "palisade.orders.v1.OrdersService";
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// Reads the keys that the configuration names.
pub fn keys(config: &Config, process: &Process) -> anyhow::Result<Keys> {
    Ok(Keys::read(&config.auth, "orders", &config.identity, process.clock.clone(), client::jwks::connect)?)
}

/// Starts the service, which runs until the process stops. Returns its gRPC address.
pub fn start(config: Config, keys: Keys, process: &Process) -> anyhow::Result<SocketAddr> {
    let opened = open_store(&config.store)?;
    start_with_store(config, opened, keys, process)
}

/// As [`start`] with an open store.
pub fn start_with_store(config: Config, opened: Opened, keys: Keys, process: &Process) -> anyhow::Result<SocketAddr> {
    metrics::register();
    let readiness = process.readiness();
    let Opened { store, database, reconnect } = opened;
    let clock = DatabaseClock::new(process.clock.clone());
    let system = database.system;
    let watchers = OrderWatchers::default();
    let changed = watchers.clone();
    let store = InstrumentedStore::new(store, database, Duration::from_millis(config.store.timeout_ms));
    let store = store.with_reconnect(reconnect).on_change(move |order| changed.notify_change(order));
    let store: Arc<dyn Store> = Arc::new(store);
    let probed = (store.clone(), clock.clone());
    readiness.watch(system, true, process.shutdown.clone(), move || {
        let (store, clock) = probed.clone();
        async move { clock.follow(store.ping()).await.map_err(|error| error.to_string()) }
    });
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let broker = Broker::new(&config.events)?;
    if let Some(probe) = broker.probe() {
        // Reported but not required for readiness: without the broker events wait in the outbox,
        // and watchers fall back to polling.
        readiness.watch("nats", false, process.shutdown.clone(), probe);
    }
    let outbox = OrdersOutbox { store: store.clone(), watchers: watchers.clone(), clock: clock.clone() };
    let relay = Arc::new(Relay::new(Arc::new(outbox), broker.clone(), Topic::ORDERS, config.events.clone()));

    let jwks = axum::Json(serde_json::to_value(keys.signing.public_jwks())?);
    let tokens = Arc::new(InternalTokens::new("orders", TokenPolicy::Service(&["products:reserve"]), keys.signing, process.clock.clone()));
    let credentials = CredentialsLayer::new(tokens, "products");
    let upstream = config.upstreams.products();
    let client = client::connect("products", &upstream, MethodContracts::from_descriptors(FILE_DESCRIPTOR_SET)?, credentials)?;
    let breakers = palisade_middleware::admin::breakers::routes([client.breaker().clone()]);
    // Reported but not required for readiness: orders are accepted without products, and their
    // sagas finish when it is back.
    let endpoints = client.endpoints().context("the client has no endpoints")?.clone();
    let (probe, breaker) = (health::grpc_probe(endpoints), client.breaker().clone());
    readiness.watch("products", false, process.shutdown.clone(), health::on_recovery(probe, move || breaker.end_open_time()));
    let products = Products::new(client);

    let executor = SagaExecutor::new(store.clone(), products.clone(), clock.clone(), Duration::from_millis(config.saga.lease_ms));
    let worker = Worker {
        store: store.clone(),
        executor: executor.clone(),
        products: products.clone(),
        clock: clock.clone(),
        config: config.saga.clone(),
    };
    let completed = Arc::new(Notify::new());
    let fulfiller = Fulfiller {
        store: store.clone(),
        products: products.clone(),
        clock: clock.clone(),
        config: config.saga.clone(),
        completed: completed.clone(),
    };
    let repair = Repair { store: store.clone(), products: products.clone() };
    let audit = Audit { store: store.clone(), products, clock: clock.clone() };
    let admin_state =
        admin::AdminState { store: store.clone(), watchers: watchers.clone(), audit: audit.clone(), repair, clock: clock.clone() };
    let jobs = Background { store: store.clone(), relay, broker, watchers: watchers.clone(), worker, fulfiller, audit };
    let worker = jobs.start(&Jobs::new(process, &readiness, &config.jobs), &config);

    let methods = Arc::new(MethodTable::new(&[&METHODS, &server::GRPC_INFRASTRUCTURE])?);
    let faults = Faults::new(&config.server.fault_injection, Protocol::Grpc, &methods);
    let jwks = axum::routing::get(move || async move { jwks });
    let admin_routes = admin::router(admin_state)
        .merge(breakers)
        .merge(palisade_middleware::admin::faults::routes(faults.clone()))
        .route("/jwks.json", jwks);
    let orders = Orders {
        store,
        watchers,
        completed,
        executor,
        process: process.clone(),
        cursor: Cursor::new(CURSOR_SECRET),
        config: config.saga,
        worker,
        clock,
    };
    let orders = OrdersServiceServer::new(orders).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let router = server::grpc::router(
        Routes::new(orders),
        SERVICE,
        FILE_DESCRIPTOR_SET,
        &methods,
        &readiness,
        process.shutdown.clone(),
        MAX_MESSAGE_BYTES,
    )?;
    let address =
        server::serve(process, ("orders", Protocol::Grpc), config.listen, router, methods, keys.verifier, (&config.server, faults));
    let address = address?;
    registration::start("orders", &config.registration, address, &readiness, process)?;
    // Last, so that no probe sees readiness before the service accepts requests.
    process.serve_admin("orders", (config.admin_listen, &config.admin_hosts), readiness, admin_routes)?;
    Ok(address)
}

/// Protects against mistakes, not against attackers: a forged cursor reveals nothing that the query
/// would not return.
const CURSOR_SECRET: &[u8] = b"palisade.orders.v1 positions";

/// Migrates the schema of the store at `url`, for a job that runs before the replicas start.
pub async fn migrate(url: &str) -> anyhow::Result<()> {
    let config = config::Store { url: Some(url.to_owned().into()), ..config::Store::default() };
    Ok(open_store(&config)?.store.migrate().await?)
}

/// Redrives the dead-lettered events of the store at `url` and returns their number, for operators
/// without access to an admin port.
pub async fn redrive(url: &str) -> anyhow::Result<u64> {
    let config = config::Store { url: Some(url.to_owned().into()), ..config::Store::default() };
    Ok(redrive_all(&*open_store(&config)?.store).await?)
}

/// Erases the data of `subject` from the store and the archive of `config`, for operators. Returns
/// the pseudonym that replaces it, and the counts.
pub async fn erase(config: &Config, subject: &Subject) -> anyhow::Result<(Subject, Erased)> {
    let pseudonym = erasure::pseudonym(subject)?;
    let archive = config.retention.archive_dir.as_deref().map(Archive::new);
    let store = open_store(&config.store)?.store;
    let erased = erasure::erase(&*store, archive.as_ref(), subject, &pseudonym).await?;
    Ok((pseudonym, erased))
}

/// Store before its instrumentation.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its attributes for telemetry.
    pub database: Database,
    /// Control of its connections.
    pub reconnect: Reconnect,
}

fn open_store(config: &config::Store) -> anyhow::Result<Opened> {
    let url = config.url()?;
    let url = url.expose();
    match url.split_once("://") {
        Some(("postgres" | "postgresql", rest)) if names_several_hosts(rest) => {
            bail!("store.url must name one host: for failover, name a DNS record, a virtual IP or a proxy that follows the primary")
        }
        Some(("postgres" | "postgresql", _)) => {
            let store = PostgresStore::new(url, config.max_connections)?;
            let (database, reconnect) = (store.database(), store.reconnect());
            Ok(Opened { store: Arc::new(store), database, reconnect })
        }
        Some(("sqlite", _)) => {
            let store = SqliteStore::new(url)?;
            let (database, reconnect) = (store.database(), store.reconnect());
            Ok(Opened { store: Arc::new(store), database, reconnect })
        }
        _ => bail!("store.url: must start with postgres:// or sqlite://"),
    }
}

/// Returns whether the part of a PostgreSQL URL after its scheme lists several hosts, as libpq
/// accepts and sqlx does not.
fn names_several_hosts(rest: &str) -> bool {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().contains(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_url_with_several_hosts_is_explained() {
        for (url, several) in [
            ("a:secret@db1:5432,db2:5432/shop?target_session_attrs=read-write", true),
            ("db1,db2", true),
            ("a,b:sec,ret@db1:5432/shop?options=a,b", false),
            ("[::1]:5432/shop", false),
        ] {
            assert_eq!(names_several_hosts(url), several, "{url}");
        }
        let store = config::Store { url: Some("postgres://a:secret@db1,db2/shop".into()), ..config::Store::default() };
        let error = open_store(&store).err().unwrap().to_string();
        assert!(error.starts_with("store.url ") && !error.contains("secret"), "{error}");
    }
}

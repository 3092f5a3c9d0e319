//! Startup of the products service from its configuration.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use palisade_events::{Broker, Relay, Topic};
use palisade_middleware::{
    auth::{Subject, Verifier},
    backoff::Backoff,
    client,
    clock::Clock,
    config::SecretUrl,
    cursor::Cursor,
    database_clock::DatabaseClock,
    discovery::registration,
    fault_injection::Faults,
    jitter,
    jobs::Jobs,
    method_table::MethodTable,
    process::Process,
    respond::Protocol,
    server,
    store_instrumentation::Database,
};
use palisade_proto::{FILE_DESCRIPTOR_SET, products::v1::products_service_server::ProductsServiceServer};
use palisade_store::Reconnect;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    admin, background,
    config::Config,
    erasure::{self, Erased},
    grpc::{METHODS, Products},
    metrics,
    relay::ProductsOutbox,
    search_limit::SearchLimit,
    store::{self, ConnectingStore, InstrumentedStore, MongoStore, SqliteStore, Store},
};

/// First and longest backoff between two attempts to open the store.
const INITIAL_OPEN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_OPEN_BACKOFF: Duration = Duration::from_secs(5);
const SERVICE: &str = "palisade.products.v1.ProductsService";
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Not a secret: it detects mistakes, not attacks. A forged position reveals nothing beyond the
/// query itself.
const CURSOR_SECRET: &[u8] = b"palisade.products.v1 positions";

/// Returns the configured token verifier.
pub fn verifier(config: &Config, process: &Process) -> anyhow::Result<Arc<Verifier>> {
    Ok(Arc::new(config.auth.verifier("products", process.clock.clone(), client::jwks::connect)?))
}

/// Starts the service, which runs until the process stops. Returns its gRPC address.
pub fn start(config: &Config, verifier: Arc<Verifier>, process: &Process) -> anyhow::Result<SocketAddr> {
    let url = config.store.url()?;
    let database = store::database_of(url.expose()).context("store.url: must begin with mongodb:// or sqlite://")?;
    let store = ConnectingStore::<dyn Store>::default();
    let reconnect = open_store(url, &store, process)?;
    start_with_store(config, Opened { store, database, reconnect }, verifier, process)
}

/// As [`start`] with an open store.
pub fn start_with_store(config: &Config, opened: Opened, verifier: Arc<Verifier>, process: &Process) -> anyhow::Result<SocketAddr> {
    metrics::register();
    let readiness = process.readiness();
    let Opened { store: opened, database, reconnect } = opened;
    let clock = DatabaseClock::new(process.clock.clone());
    let system = database.system;
    let timeout = Duration::from_millis(config.store.timeout_ms);
    let store = InstrumentedStore::connecting(opened, database, timeout).with_reconnect(reconnect);
    let changed = store.changed();
    let store: Arc<dyn Store> = Arc::new(store);
    let probed = (store.clone(), clock.clone());
    readiness.watch(system, true, process.shutdown.clone(), move || {
        let (store, clock) = probed.clone();
        async move { clock.follow(store.ping()).await.map_err(|error| error.to_string()) }
    });
    let clock: Arc<dyn Clock> = Arc::new(clock);

    let broker = Broker::new(&config.events)?;
    if let Some(probe) = broker.probe() {
        // Reported but not required: unpublished events stay in the outbox.
        readiness.watch("nats", false, process.shutdown.clone(), probe);
    }
    let outbox = ProductsOutbox { store: store.clone(), changed, clock: clock.clone() };
    let relay = Arc::new(Relay::new(Arc::new(outbox), broker, Topic::PRODUCTS, config.events.clone()));
    background::start(&Jobs::new(process, &readiness, &config.jobs), &store, relay, &clock, config);

    let methods = Arc::new(MethodTable::new(&[&METHODS, &server::GRPC_INFRASTRUCTURE])?);
    let faults = Faults::new(&config.server.fault_injection, Protocol::Grpc, &methods);
    let admin_routes = admin::router(store.clone(), clock.clone()).merge(palisade_middleware::admin::faults::routes(faults.clone()));
    let hold_ttl = Duration::from_millis(config.reservations.hold_ttl_ms);
    let searches = SearchLimit::new(config.search.max_concurrent as usize, Duration::from_millis(config.search.max_wait_ms));
    let products = Products { store, clock, cursor: Cursor::new(CURSOR_SECRET), searches, hold_ttl };
    let products = ProductsServiceServer::new(products).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let router = server::grpc::router(
        Routes::new(products),
        SERVICE,
        FILE_DESCRIPTOR_SET,
        &methods,
        &readiness,
        process.shutdown.clone(),
        MAX_MESSAGE_BYTES,
    )?;
    let address = server::serve(process, ("products", Protocol::Grpc), config.listen, router, methods, verifier, (&config.server, faults));
    let address = address?;
    registration::start("products", &config.registration, address, &readiness, process)?;
    // Last, so that no probe sees readiness before the service accepts requests.
    process.serve_admin("products", (config.admin_listen, &config.admin_hosts), readiness, admin_routes)?;
    Ok(address)
}

/// Erases the data of `subject` from the store of `config`, for operators. `pseudonym` replaces it.
pub async fn erase(config: &Config, subject: &Subject, pseudonym: &Subject) -> anyhow::Result<Erased> {
    let url = config.store.url()?;
    let store: Arc<dyn Store> = match url.scheme() {
        "sqlite" => Arc::new(SqliteStore::new(url.expose())?),
        _ => Arc::new(MongoStore::new(url.expose()).await?),
    };
    Ok(erasure::erase(&*store, subject, pseudonym).await?)
}

/// Store before its instrumentation.
pub struct Opened {
    /// The store, which may still be opened in the background.
    pub store: ConnectingStore<dyn Store>,
    /// Its attributes for telemetry.
    pub database: Database,
    /// Control of its connections.
    pub reconnect: Reconnect,
}

/// Opens the store and returns the control of its connections. A server whose name cannot be
/// resolved yet is opened in the background.
fn open_store(url: SecretUrl, opened: &ConnectingStore<dyn Store>, process: &Process) -> anyhow::Result<Reconnect> {
    if url.scheme() == "sqlite" {
        let store = SqliteStore::new(url.expose())?;
        let reconnect = store.reconnect();
        // The cell is empty.
        let _ = opened.set(Arc::new(store));
        return Ok(reconnect);
    }
    process.run(open_mongo(url, opened.clone(), process.shutdown.clone()));
    // The driver replaces the connections to a server that no longer accepts writes.
    Ok(Reconnect::default())
}

/// Opens a MongoDB store, however long the lookup of its SRV records takes.
async fn open_mongo(url: SecretUrl, opened: ConnectingStore<dyn Store>, shutdown: CancellationToken) {
    let opening = async {
        let mut backoff = Backoff::new(INITIAL_OPEN_BACKOFF, MAX_OPEN_BACKOFF);
        loop {
            match MongoStore::new(url.expose()).await {
                Ok(store) => {
                    // The cell is empty.
                    let _ = opened.set(Arc::new(store));
                    return;
                }
                Err(error) => tracing::warn!(%url, error = &error as &dyn std::error::Error, "cannot open the store, retrying"),
            }
            tokio::time::sleep(jitter::jittered(backoff.next_wait(), 0.5, jitter::random_unit)).await;
        }
    };
    shutdown.run_until_cancelled(opening).await;
}

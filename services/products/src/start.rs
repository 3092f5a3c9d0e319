//! Startup of the products service from its configuration.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use palisade_events::{Broker, Relay, Topic};
use palisade_middleware::{
    auth::Verifier, client, clock::Clock, cursor::Cursor, database_clock::DatabaseClock, discovery::registration, fault_injection::Faults,
    jobs::Jobs, method_table::MethodTable, process::Process, respond::Protocol, server, store_instrumentation::Database,
};
use palisade_proto::{FILE_DESCRIPTOR_SET, products::v1::products_service_server::ProductsServiceServer};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use tonic::service::Routes;

use crate::{
    admin, background,
    config::{self, Config},
    grpc::{METHODS, Products},
    metrics,
    relay::ProductsOutbox,
    search_limit::SearchLimit,
    store::{InstrumentedStore, MongoStore, Reconnect, SqliteStore, Store},
};

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
pub async fn start(config: Config, verifier: Arc<Verifier>, process: &Process) -> anyhow::Result<SocketAddr> {
    metrics::register();
    let readiness = process.readiness();
    let Opened { store, database, reconnect } = open_store(&config.store).await?;
    let clock = DatabaseClock::new(process.clock.clone());
    let system = database.system;
    let store = InstrumentedStore::new(store, database, Duration::from_millis(config.store.timeout_ms)).with_reconnect(reconnect);
    let changed = store.changed();
    let store: Arc<dyn Store> = Arc::new(store);
    let probed = (store.clone(), clock.clone());
    readiness.watch(system, true, process.shutdown.clone(), move || {
        let (store, clock) = probed.clone();
        async move {
            let asked = Instant::now();
            if let Some(now) = store.ping().await.map_err(|error| error.to_string())? {
                clock.synchronize(now, asked);
            }
            Ok(())
        }
    });
    let clock: Arc<dyn Clock> = Arc::new(clock);

    let broker = Broker::new(&config.events)?;
    if let Some(probe) = broker.probe() {
        // Reported but not required: unpublished events stay in the outbox.
        readiness.watch("nats", false, process.shutdown.clone(), probe);
    }
    let outbox = ProductsOutbox { store: store.clone(), changed, clock: clock.clone() };
    let relay = Arc::new(Relay::new(Arc::new(outbox), broker, Topic::PRODUCTS, config.events.clone()));
    background::start(&Jobs::new(process, &readiness, &config.jobs), &store, relay, &clock, &config);

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
    let address = address.with_context(|| format!("listen: {}", config.listen))?;
    registration::start("products", &config.registration, address, &readiness, process)?;
    // Last, so that no probe sees readiness before the service accepts requests.
    process.serve_admin("products", config.admin_listen, readiness, admin_routes)?;
    Ok(address)
}

/// Store before its instrumentation.
struct Opened {
    store: Arc<dyn Store>,
    database: Database,
    reconnect: Reconnect,
}

async fn open_store(config: &config::Store) -> anyhow::Result<Opened> {
    let url = config.url()?;
    let url = url.expose_secret();
    match url.split_once("://") {
        Some(("mongodb" | "mongodb+srv", _)) => {
            let store = MongoStore::new(url).await?;
            // The driver replaces the connections to a server that no longer accepts writes.
            let (database, reconnect) = (store.database(), Reconnect::default());
            Ok(Opened { store: Arc::new(store), database, reconnect })
        }
        Some(("sqlite", _)) => {
            let store = SqliteStore::new(url)?;
            let (database, reconnect) = (store.database(), store.reconnect());
            Ok(Opened { store: Arc::new(store), database, reconnect })
        }
        _ => bail!("store.url must begin with mongodb:// or sqlite://"),
    }
}

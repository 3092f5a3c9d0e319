//! Production store on MongoDB. Also runs on a standalone server, so it uses no multi-document
//! transactions.
//!
//! A reservation spans several products. It is first recorded as `RESERVING`, then each product is
//! changed by one guarded update that leaves a mark in it, then the reservation gets its final
//! state. Concurrent reservations share the commands of each step ([`reserve_batch`]). Any executor that finds an unfinished reservation (a repeated call or the sweeper)
//! finishes it: the marks record the completed steps. See [`reservations`] for the steps and
//! [`stock_marks`] for the safety argument.

use std::{sync::Arc, time::Duration};

use mongodb::{
    Client, Database,
    event::EventHandler,
    options::{
        Acknowledgment, ClientOptions, ConnectionString, HostInfo, ReadConcern, ReadPreference, SelectionCriteria, ServerAddress,
        WriteConcern,
    },
};
use palisade_middleware::{
    group_commit::{GroupCommit, Limits},
    store_instrumentation,
};
use palisade_store::WriteProbe;
use parking_lot::Mutex;

use self::{collections::Collections, documents::RemovedDocument, pool::ConnectionTracker, reserve_batch::ReserveWriter};
use super::database::{Error, RESERVES};

mod audit;
mod collections;
mod documents;
mod erasure;
mod fulfilment;
mod history;
mod keys;
mod ledger;
mod ledger_documents;
mod maintenance;
mod new_product;
mod outbox;
mod pool;
mod products;
mod replace;
mod reservations;
mod reserve_batch;
mod revision;
mod search;
mod search_document;
mod stock_marks;
mod sweep;
#[cfg(test)]
mod test_store;
#[cfg(test)]
mod tests;

/// Database if the connection string names none.
const DEFAULT_DATABASE: &str = "palisade";
/// Port of a host without one.
const DEFAULT_PORT: u16 = 27_017;

/// Product store in a MongoDB database.
#[derive(Debug)]
pub struct MongoStore {
    database: Database,
    collections: Arc<Collections>,
    /// Batches of new reservations.
    reserves: GroupCommit<ReserveWriter>,
    server: Option<(Arc<str>, u16)>,
    write_probe: WriteProbe,
    /// Position of the relay in the removal markers, see [`outbox`].
    removal_scan: Mutex<Option<RemovedDocument>>,
}

impl MongoStore {
    /// Returns the database attributes of the connection string `url`, or `None` if it is invalid.
    pub(super) fn database_of(url: &str) -> Option<store_instrumentation::Database> {
        let parsed = ConnectionString::parse(url).ok()?;
        let namespace = parsed.default_database.as_deref().unwrap_or(DEFAULT_DATABASE).into();
        let server = match &parsed.host_info {
            HostInfo::HostIdentifiers(hosts) => single_server(hosts),
            _ => None,
        };
        Some(store_instrumentation::Database { system: "mongodb", namespace, server })
    }

    /// Creates the store for a `mongodb://` URL. Connects on first use, so the service starts while
    /// its database is down. Pool and timeout options in the URL override the defaults.
    pub async fn new(url: &str) -> Result<Self, Error> {
        let mut options = consistent_options(ClientOptions::parse(url).await?);
        options.app_name.get_or_insert_with(|| "products".to_owned());
        let connections = ConnectionTracker::new(*options.max_pool_size.get_or_insert(50));
        options.cmap_event_handler = Some(EventHandler::callback(move |event| connections.on_event(event)));
        options.min_pool_size.get_or_insert(2);
        options.max_connecting.get_or_insert(8);
        options.max_idle_time.get_or_insert(Duration::from_mins(5));
        options.connect_timeout.get_or_insert(Duration::from_secs(1));
        options.server_selection_timeout.get_or_insert(Duration::from_secs(1));
        options.heartbeat_freq.get_or_insert(Duration::from_secs(5));
        let server = single_server(&options.hosts);
        let client = Client::with_options(options)?;
        let database = client.default_database().unwrap_or_else(|| client.database(DEFAULT_DATABASE));
        let collections = Arc::new(Collections::new(&database));
        let reserves = GroupCommit::new(RESERVES, ReserveWriter { collections: collections.clone() }, Limits::default());
        Ok(Self { database, collections, reserves, server, write_probe: WriteProbe::default(), removal_scan: Mutex::default() })
    }

    /// Returns the database attributes of the semantic conventions.
    pub fn database(&self) -> store_instrumentation::Database {
        store_instrumentation::Database { system: "mongodb", namespace: self.database.name().into(), server: self.server.clone() }
    }
}

/// Sets the options that decide about correctness, whatever the URL says. An acknowledged write
/// must survive a crash and a failover. A read must not return stock or reservations that a
/// failover could roll back, or that are outdated.
fn consistent_options(mut options: ClientOptions) -> ClientOptions {
    let durable = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(Duration::from_secs(2)).build();
    options.write_concern = Some(durable);
    options.read_concern = Some(ReadConcern::majority());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options
}

/// Returns host and port of the only server, `None` for several.
fn single_server(hosts: &[ServerAddress]) -> Option<(Arc<str>, u16)> {
    match hosts {
        [ServerAddress::Tcp { host, port }] => Some((host.as_str().into(), port.unwrap_or(DEFAULT_PORT))),
        _ => None,
    }
}

//! Systems under test: the shop on each set of stores, and a hop with and without middleware, each
//! with telemetry off, at 10 % and at 100 %.

mod hop;
mod shop;

use std::{env, process::Command};

use palisade_tests::{
    Shop,
    child::{Child, Signal},
    servers::{self, Mongo, Postgres},
};

use super::{cpu_usage::Processes, load_generator::Request};

/// Telemetry levels and their share of exported traces. `None` runs without a collector.
const TELEMETRY: [(&str, Option<&str>); 3] = [("off", None), ("10 %", Some("0.1")), ("100 %", Some("1.0"))];
/// Embedded stores.
pub(super) const FILES: &str = "SQLite";
/// Database servers.
pub(super) const SERVERS: &str = "PostgreSQL + MongoDB";
/// Embedded stores with the gateway's response cache.
pub(super) const CACHED: &str = "SQLite, cache on";
/// Database servers by name.
pub(super) const POSTGRES: &str = "PostgreSQL";
pub(super) const MONGO: &str = "MongoDB";
/// Hop without stores, or with a baseline read only.
pub(super) const HOP: &str = "hop";
/// Hop without middleware.
pub(super) const BARE: &str = "bare";
/// Hop without middleware whose backend reads from `MongoDB`.
pub(super) const READS: &str = "bare + one find_one of the MongoDB driver";

/// All running systems.
pub struct SystemsUnderTest {
    shops: Vec<(SystemUnderTest, Shop)>,
    hops: Vec<(SystemUnderTest, [Child; 2])>,
    // Drop order: after the systems that use them.
    _stores: (Postgres, Mongo),
    _collector: Child,
}

/// Processes that are measured together, and the requests that load them.
#[derive(Debug, Clone)]
pub(super) struct SystemUnderTest {
    pub(super) stores: &'static str,
    pub(super) telemetry: &'static str,
    pub(super) processes: Processes,
    pub(super) requests: Vec<Request>,
}

impl SystemsUnderTest {
    /// Starts all systems and creates their products.
    pub async fn start() -> Self {
        let (collector, spans) = start_collector();
        let stores = (servers::durable_postgres(), servers::mongo());
        let hops = hop::all(&spans, &stores.1);
        let mut shops = Vec::new();
        for (telemetry, sampled) in TELEMETRY {
            for on_servers in [false, true] {
                let sampled = sampled.map(|share| (spans.as_str(), share));
                let name = if on_servers { SERVERS } else { FILES };
                shops.push(shop::start(name, telemetry, sampled, on_servers.then_some((&stores.0, &stores.1))).await);
            }
        }
        shops.push(shop::start(CACHED, TELEMETRY[0].0, None, None).await);
        Self { shops, hops, _stores: stores, _collector: collector }
    }

    pub(super) fn all(&self) -> Vec<&SystemUnderTest> {
        self.hops.iter().map(|(system, _)| system).chain(self.shops.iter().map(|(system, _)| system)).collect()
    }
}

/// Shop with 10 % of traces, on database servers that sync each commit or on files.
pub(super) struct DurableShop {
    pub(super) system: SystemUnderTest,
    shop: Shop,
    // Drop order: after the shop, which uses them.
    stores: Option<(Postgres, Mongo)>,
    _collector: Child,
}

impl DurableShop {
    /// Starts the shop and creates its products.
    pub(super) async fn start(on_servers: bool) -> Self {
        let (collector, spans) = start_collector();
        let stores = on_servers.then(|| (servers::durable_postgres(), servers::durable_mongo()));
        let (name, servers) = (if on_servers { SERVERS } else { FILES }, stores.as_ref().map(|(postgres, mongo)| (postgres, mongo)));
        let (system, shop) = shop::start(name, "10 %", Some((&spans, "0.1")), servers).await;
        Self { system, shop, stores, _collector: collector }
    }

    /// Returns the request that orders each product in turn.
    pub(super) fn orders(&self) -> &Request {
        self.system.requests.iter().find(|request| !request.products.is_empty()).expect("a shop takes orders")
    }
}

/// Starts a shop on database servers or on files. Prints what another load generator needs, and
/// runs until the standard input ends.
pub async fn serve(on_servers: bool, print: impl Fn(&str)) {
    let shop = DurableShop::start(on_servers).await;
    let orders = shop.orders();
    let DurableShop { system, shop, stores, .. } = &shop;
    let description = serde_json::json!({
        "url": shop.url(),
        "pids": system.processes.services.iter().map(|(_, id)| id).collect::<Vec<_>>(),
        "token": orders.token,
        "products": orders.products,
        "postgres": stores.as_ref().map(|(postgres, _)| (postgres.process_id(), postgres.url("peer"))),
        "mongo": stores.as_ref().map(|(_, mongo)| (mongo.process_id(), mongo.url("peer"))),
    });
    print(&description.to_string());
    let end = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    let _ = end.await;
}

/// Starts the process that receives the traces. Returns its URL.
fn start_collector() -> (Child, String) {
    let mut collector = Command::new(env::current_exe().expect("path of the current executable is known"));
    let collector = Child::spawn(collector.arg("collect"), None, Signal::KILL).expect("this program can be started");
    let url = |line: &str| line.strip_prefix("listening collector ").map(str::to_owned);
    let spans = collector.wait_for_line(url).unwrap_or_else(|| panic!("collector did not start: {}", collector.last_lines()));
    (collector, spans)
}

impl std::fmt::Debug for SystemsUnderTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

//! What is measured: the shop on either set of stores, and a hop bare and with all layers, each with telemetry off, a tenth and all of it.

mod hop;
mod shop;

use std::{collections::BTreeMap, env, process::Command};

use palisade_tests::{
    Shop,
    child::{Child, Signal},
    servers::{self, Mongo, Postgres},
};

use super::cpu_usage::resident;

/// The share of traces that is exported; without one there is no collector.
const TELEMETRY: [(&str, Option<&str>); 3] = [("off", None), ("10 %", Some("0.1")), ("100 %", Some("1.0"))];
/// Stores on files.
pub(super) const FILES: &str = "SQLite";
/// Stores on servers.
pub(super) const SERVERS: &str = "PostgreSQL + MongoDB";
/// Likewise, and the gateway keeps what is read.
pub(super) const CACHED: &str = "SQLite, cache on";
/// No stores, or next to none.
pub(super) const HOP: &str = "hop";
/// A hop without layers.
pub(super) const BARE: &str = "bare";
/// The same, and its backend reads from `MongoDB`.
pub(super) const READS: &str = "bare, and one find_one by the MongoDB driver";

/// Everything that runs.
pub struct Subjects {
    shops: Vec<(SystemUnderTest, Shop)>,
    hops: Vec<(SystemUnderTest, [Child; 2])>,
    // Dropped after those that use them.
    _stores: (Postgres, Mongo),
    _collector: Child,
}

/// Processes that are measured together.
#[derive(Debug, Clone)]
pub(super) struct SystemUnderTest {
    pub(super) stores: &'static str,
    pub(super) telemetry: &'static str,
    /// The program and its process.
    pub(super) processes: Vec<(&'static str, u32)>,
    /// The processes of database servers.
    pub(super) databases: Vec<u32>,
    pub(super) requests: Vec<Request>,
}

/// One kind of request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) route: &'static str,
    pub(super) url: String,
    pub(super) token: String,
    /// What is ordered; nothing is read.
    pub(super) products: Vec<String>,
    /// How often k6 sends it, a second.
    pub(super) rate: u32,
}

impl SystemUnderTest {
    /// Resident memory of its processes, MiB.
    pub(super) fn resident(&self) -> BTreeMap<&'static str, f64> {
        self.processes.iter().map(|(name, id)| (*name, resident(*id))).collect()
    }
}

impl Subjects {
    /// Starts all of them, and puts goods on their shelves.
    pub async fn start() -> Self {
        let mut collector = Command::new(env::current_exe().expect("a program knows where it is"));
        let collector = Child::spawn(collector.arg("collect"), None, Signal::KILL).expect("this program can be started");
        let listens = |line: &str| line.strip_prefix("listening collector ").map(str::to_owned);
        let spans = collector.line(listens).unwrap_or_else(|| panic!("no collector: {}", collector.log()));
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
        self.hops.iter().map(|(subject, _)| subject).chain(self.shops.iter().map(|(subject, _)| subject)).collect()
    }
}

impl std::fmt::Debug for Subjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

//! The whole shop, running: all in one process, or each service on its own with the stores you choose.

mod separate_processes;
mod keys;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use self::keys::configure_trust;
use crate::{
    client::Client,
    eventually,
    gateways::Gateways,
    jwt,
    process::{Program, command, output_of},
    servers::free_port,
};

/// Every scope that a user's token may carry.
pub const ALL_SCOPES: &str = "products:read products:write orders:read orders:write orders:admin";

/// What a customer needs.
pub const CUSTOMER: &str = "products:read orders:read orders:write";

/// The three services, whose names are also those of their jobs in Prometheus.
pub const SERVICES: [&str; 3] = ["gateway", "products", "orders"];

/// How many there are of each of them in [`Shop::replicated`].
pub const REPLICAS: [usize; 3] = [2, 3, 3];

/// A running shop. Dropping it kills its processes and removes its data.
#[derive(Debug)]
pub struct Shop {
    // Dropped in this order: the processes before their data.
    programs: BTreeMap<&'static str, Vec<Program>>,
    /// If there are several.
    gateways: Option<Arc<Gateways>>,
    tokens: Mutex<BTreeMap<String, String>>,
    directory: TempDir,
}

impl Shop {
    /// The all-in-one of this test process, started on first use. For tests that leave each other's users and products alone.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Shop> = OnceLock::new();
        SHARED.get_or_init(Self::all_in_one)
    }

    /// All three services in one process with embedded stores.
    pub fn all_in_one() -> Self {
        Self::all_in_one_with(|_| {})
    }

    /// As [`Self::all_in_one`], with more flags or environment.
    pub fn all_in_one_with(configure: impl FnOnce(&mut Command)) -> Self {
        let directory = TempDir::with_prefix("palisade-shop-").expect("a temporary directory can be made");
        let mut command = command("palisade");
        command.arg("--data-dir").arg(directory.path());
        // Callers keep the gateway's address through a restart, so that it must be found free: below the ephemeral range.
        command.args(["--gateway-listen", &format!("127.0.0.1:{}", free_port()), "--gateway-admin-listen", "127.0.0.1:0"]);
        command.args(["--products-listen", "127.0.0.1:0", "--products-admin-listen", "127.0.0.1:0"]);
        command.args(["--orders-listen", "127.0.0.1:0", "--orders-admin-listen", "127.0.0.1:0"]);
        configure(&mut command);
        let programs = BTreeMap::from([("palisade", vec![Program::start(command, directory.path())])]);
        Self { programs, gateways: None, tokens: Mutex::default(), directory }
    }

    /// Three processes; a store is a connection string, or `None` for a file of the shop's own.
    pub fn separate(products_store: Option<&str>, orders_store: Option<&str>) -> Self {
        Self::separate_with(products_store, orders_store, |_, _| {})
    }

    /// As [`Self::separate`], with more flags or environment for each service, which is named.
    pub fn separate_with(products_store: Option<&str>, orders_store: Option<&str>, configure: impl Fn(&str, &mut Command)) -> Self {
        Self::apart([1, 1, 1], (products_store, orders_store), configure)
    }

    /// Several processes of each service ([`REPLICAS`]) over one store for products and one for orders, each told where all replicas of the
    /// services are that it calls. `configure` is asked for each process.
    pub fn replicated(products_store: &str, orders_store: &str, configure: impl Fn(&str, &mut Command)) -> Self {
        Self::apart(REPLICAS, (Some(products_store), Some(orders_store)), configure)
    }

    /// One more products service with the same store and keys, at an address of its own. It ends when it is dropped, which must be before the
    /// shop is.
    pub fn another_products(&self, store: &str, configure: impl FnOnce(&mut Command)) -> Program {
        self.another("products", |command| {
            command.env("PALISADE_STORE__URL", store);
            configure(command);
        })
    }

    /// One more gateway before the same services, likewise.
    pub fn another_gateway(&self, configure: impl FnOnce(&mut Command)) -> Program {
        self.another("gateway", |command| {
            for upstream in ["products", "orders"] {
                command.env(format!("PALISADE_UPSTREAMS__{}__URL", upstream.to_uppercase()), self.grpc_url(upstream));
            }
            command.env("PALISADE_IDENTITY__KEY_FILE", self.directory().join("gateway.pem"));
            configure(command);
        })
    }

    fn another(&self, service: &str, configure: impl FnOnce(&mut Command)) -> Program {
        let mut command = command(service);
        command.env("PALISADE_LISTEN", format!("127.0.0.1:{}", free_port())).env("PALISADE_ADMIN_LISTEN", "127.0.0.1:0");
        command.envs(configure_trust(service, self.directory()));
        configure(&mut command);
        Program::start(command, self.directory())
    }

    /// Waits until every process says that it is ready.
    pub async fn ready(&self) {
        for service in SERVICES {
            for replica in self.replicas(service) {
                let admin = Client::new(replica.admin_url(service), None);
                eventually(async || admin.get("/readyz").attempt().await.ok().filter(|answer| answer.status == 200)).await;
            }
        }
    }

    /// Where the data, the keys and the configuration are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The programs a service runs in.
    pub fn replicas(&self, service: &str) -> &[Program] {
        self.programs.get(service).or_else(|| self.programs.get("palisade")).expect("a service of the shop")
    }

    /// The programs a service runs in, to be killed, restarted and the like.
    pub fn replicas_mut(&mut self, service: &str) -> &mut [Program] {
        let name = if self.programs.contains_key(service) { service } else { "palisade" };
        self.programs.get_mut(name).expect("a service of the shop")
    }

    /// The program a service runs in; the first one of several.
    pub fn program(&self, service: &str) -> &Program {
        &self.replicas(service)[0]
    }

    /// As [`Self::program`], to be killed, restarted and the like.
    pub fn program_mut(&mut self, service: &str) -> &mut Program {
        &mut self.replicas_mut(service)[0]
    }

    /// The gateways, if there are several.
    pub fn gateways(&self) -> Option<&Arc<Gateways>> {
        self.gateways.as_ref()
    }

    /// The base URL of the gateway.
    pub fn url(&self) -> String {
        self.program("gateway").url("gateway")
    }

    /// The base URL of a gRPC service.
    pub fn grpc_url(&self, service: &str) -> String {
        self.program(service).url(service)
    }

    /// The base URL of a service's admin port.
    pub fn admin_url(&self, service: &str) -> String {
        self.program(service).admin_url(service)
    }

    /// A token for the gateway, made the way a user of this shop would get one.
    pub fn token(&self, subject: &str, scope: &str) -> String {
        if !self.programs.contains_key("palisade") {
            return jwt::token(subject, scope);
        }
        self.mint(&["--sub", subject, "--scope", scope])
    }

    /// A token for a service itself (`products`, `orders`), of the all-in-one's development issuer.
    pub fn service_token(&self, audience: &str, subject: &str, scope: &str) -> String {
        self.mint(&["--sub", subject, "--scope", scope, "--audience", audience])
    }

    fn mint(&self, arguments: &[&str]) -> String {
        let data = self.directory.path().to_str().expect("a temporary path is UTF-8");
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let mint = || output_of("palisade", &[&["token", "--data-dir", data], arguments].concat());
        tokens.entry(arguments.join("\0")).or_insert_with(mint).clone()
    }

    /// A caller of the gateway, or of all of them.
    pub fn client(&self, subject: &str, scope: &str) -> Client {
        let client = Client::new(self.url(), Some(self.token(subject, scope)));
        match &self.gateways {
            Some(gateways) => client.over(gateways.clone()),
            None => client,
        }
    }

    /// A caller of the gateway without a token.
    pub fn anonymous(&self) -> Client {
        Client::new(self.url(), None)
    }

    /// The sum of what all replicas of a service tell of a metric, of the series that have all these labels (`name="value"`).
    pub async fn counted(&self, service: &str, name: &str, labels: &[&str]) -> f64 {
        let mut sum = 0.0;
        for replica in self.replicas(service) {
            sum += replica.metric_value(service, name, labels).await;
        }
        sum
    }

    /// What a service's own check of its invariants finds; panics when one is broken.
    pub async fn invariants(&self, service: &str) -> Value {
        let report = Client::new(self.admin_url(service), None).get("/invariants").attempt().await.expect("the admin port answers").json();
        assert_eq!((&report["ok"], &report["violations"]), (&json!(true), &json!([])), "{service}: {report}");
        report
    }
}

//! Complete running shop: all-in-one, or separate processes with selectable stores.

mod keys;
mod separate_processes;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use self::keys::configure_trust;
use crate::{
    HANG_TIMEOUT,
    client::Client,
    client::gateways::Gateways,
    eventually,
    free_port::free_port,
    jwt,
    process::{Program, command, output_of},
};

/// Every scope that a user token may carry.
pub const ALL_SCOPES: &str = "products:read products:write orders:read orders:write orders:admin";

/// Scopes of a customer.
pub const CUSTOMER: &str = "products:read orders:read orders:write";

/// The three services. The names are also their Prometheus jobs.
pub const SERVICES: [&str; 3] = ["gateway", "products", "orders"];

/// Number of replicas of each service in [`Shop::replicated`].
pub const REPLICAS: [usize; 3] = [2, 3, 3];

/// Running shop. Dropping it kills its processes and removes its data.
#[derive(Debug)]
pub struct Shop {
    // Drop order: processes before data.
    programs: BTreeMap<&'static str, Vec<Program>>,
    /// Set if there are several gateways.
    gateways: Option<Arc<Gateways>>,
    tokens: Mutex<BTreeMap<String, String>>,
    directory: TempDir,
}

impl Shop {
    /// Returns the all-in-one of this test process, started on first use. For tests that use only
    /// their own users and products.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Shop> = OnceLock::new();
        SHARED.get_or_init(Self::all_in_one)
    }

    /// Returns the shop once it is ready, see [`Self::ready`]. It waits on a thread of its own: the
    /// caller may be in a runtime.
    fn when_ready(self) -> Self {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
        std::thread::scope(|scope| scope.spawn(|| runtime().block_on(self.ready())).join().expect("the shop becomes ready"));
        self
    }

    /// Starts all three services in one process with embedded stores, and waits until it is ready.
    pub fn all_in_one() -> Self {
        Self::all_in_one_with(|_| {})
    }

    /// Same as [`Self::all_in_one`], with additional flags or environment.
    pub fn all_in_one_with(configure: impl FnOnce(&mut Command)) -> Self {
        let directory = TempDir::with_prefix("palisade-shop-").expect("a temporary directory can be made");
        let mut command = command("palisade");
        command.arg("--data-dir").arg(directory.path());
        // Clients keep the gateway's address across a restart, so it must stay free: a port below
        // the ephemeral range.
        command.args(["--gateway-listen", &format!("127.0.0.1:{}", free_port()), "--gateway-admin-listen", "127.0.0.1:0"]);
        command.args(["--products-listen", "127.0.0.1:0", "--products-admin-listen", "127.0.0.1:0"]);
        command.args(["--orders-listen", "127.0.0.1:0", "--orders-admin-listen", "127.0.0.1:0"]);
        configure(&mut command);
        let programs = BTreeMap::from([("palisade", vec![Program::start(command, directory.path())])]);
        Self { programs, gateways: None, tokens: Mutex::default(), directory }.when_ready()
    }

    /// Starts three processes, and waits until they are ready. A store is a connection string, or
    /// `None` for a file in the shop's directory.
    pub fn separate(products_store: Option<&str>, orders_store: Option<&str>) -> Self {
        Self::separate_with(products_store, orders_store, |_, _| {})
    }

    /// Same as [`Self::separate`], with additional flags or environment per service name.
    pub fn separate_with(products_store: Option<&str>, orders_store: Option<&str>, configure: impl Fn(&str, &mut Command)) -> Self {
        Self::start_separate_with(products_store, orders_store, configure).when_ready()
    }

    /// Same as [`Self::separate_with`], without waiting: for shops that cannot become ready.
    pub fn start_separate_with(products_store: Option<&str>, orders_store: Option<&str>, configure: impl Fn(&str, &mut Command)) -> Self {
        Self::start([1, 1, 1], (products_store, orders_store), configure)
    }

    /// Starts [`REPLICAS`] of each service over one store for products and one for orders, and
    /// waits until all are ready. Clients get static lists of all replicas. `configure` is called
    /// for each process.
    pub fn replicated(products_store: &str, orders_store: &str, configure: impl Fn(&str, &mut Command)) -> Self {
        Self::start(REPLICAS, (Some(products_store), Some(orders_store)), configure).when_ready()
    }

    /// Starts an additional products process with the same store and keys and its own address. It
    /// must be dropped before the shop.
    pub fn additional_products(&self, store: &str, configure: impl FnOnce(&mut Command)) -> Program {
        self.start_another("products", |command| {
            command.env("PALISADE_STORE__URL", store);
            configure(command);
        })
    }

    /// Starts an additional gateway for the same services. It must be dropped before the shop.
    pub fn additional_gateway(&self, configure: impl FnOnce(&mut Command)) -> Program {
        self.start_another("gateway", |command| {
            for upstream in ["products", "orders"] {
                command.env(format!("PALISADE_UPSTREAMS__{}__URL", upstream.to_uppercase()), self.grpc_url(upstream));
            }
            command.env("PALISADE_IDENTITY__SIGNING_KEY_FILE", self.directory().join("gateway.pem"));
            configure(command);
        })
    }

    fn start_another(&self, service: &str, configure: impl FnOnce(&mut Command)) -> Program {
        let mut command = command(service);
        command.env("PALISADE_LISTEN", format!("127.0.0.1:{}", free_port())).env("PALISADE_ADMIN_LISTEN", "127.0.0.1:0");
        command.envs(configure_trust(service, self.directory()));
        configure(&mut command);
        Program::start(command, self.directory())
    }

    /// Waits until every process is ready.
    pub async fn ready(&self) {
        for service in SERVICES {
            for replica in self.replicas(service) {
                let admin = Client::new(replica.admin_url(service), None);
                eventually(async || admin.get("/readyz").attempt().await.ok().filter(|answer| answer.status == 200)).await;
            }
        }
    }

    /// Returns the directory of data, keys and configuration.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the programs of a service.
    pub fn replicas(&self, service: &str) -> &[Program] {
        self.programs.get(service).or_else(|| self.programs.get("palisade")).expect("a service of the shop")
    }

    /// Returns the programs of a service, mutable for kill and restart.
    pub fn replicas_mut(&mut self, service: &str) -> &mut [Program] {
        let name = if self.programs.contains_key(service) { service } else { "palisade" };
        self.programs.get_mut(name).expect("a service of the shop")
    }

    /// Returns the program of a service, the first one of several.
    pub fn program(&self, service: &str) -> &Program {
        &self.replicas(service)[0]
    }

    /// Same as [`Self::program`], mutable for kill and restart.
    pub fn program_mut(&mut self, service: &str) -> &mut Program {
        &mut self.replicas_mut(service)[0]
    }

    /// Returns the gateways, if there are several.
    pub fn gateways(&self) -> Option<&Arc<Gateways>> {
        self.gateways.as_ref()
    }

    /// Returns the base URL of the gateway.
    pub fn url(&self) -> String {
        self.program("gateway").url("gateway")
    }

    /// Returns the base URL of a gRPC service.
    pub fn grpc_url(&self, service: &str) -> String {
        self.program(service).url(service)
    }

    /// Returns a channel to a gRPC service.
    pub fn grpc_channel(&self, service: &str) -> Channel {
        let endpoint = Endpoint::from_shared(self.grpc_url(service)).expect("printed URLs are valid");
        endpoint.timeout(HANG_TIMEOUT).connect_lazy()
    }

    /// Returns the base URL of a service's admin port.
    pub fn admin_url(&self, service: &str) -> String {
        self.program(service).admin_url(service)
    }

    /// Returns a token for the gateway, issued as for a user of this shop.
    pub fn token(&self, subject: &str, scope: &str) -> String {
        if !self.programs.contains_key("palisade") {
            return jwt::token(subject, scope);
        }
        self.mint(&["--sub", subject, "--scope", scope])
    }

    /// Returns a token for a service itself (`products`, `orders`) from the all-in-one's
    /// development issuer.
    pub fn service_token(&self, audience: &str, subject: &str, scope: &str) -> String {
        self.mint(&["--sub", subject, "--scope", scope, "--audience", audience])
    }

    fn mint(&self, arguments: &[&str]) -> String {
        let data = self.directory.path().to_str().expect("a temporary path is UTF-8");
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let mint = || output_of("palisade", &[&["token", "--data-dir", data], arguments].concat());
        tokens.entry(arguments.join("\0")).or_insert_with(mint).clone()
    }

    /// Returns a client of the gateway, or of all gateways.
    pub fn client(&self, subject: &str, scope: &str) -> Client {
        let client = Client::new(self.url(), Some(self.token(subject, scope)));
        match &self.gateways {
            Some(gateways) => client.with_gateways(gateways.clone()),
            None => client,
        }
    }

    /// Returns a client of the gateway without a token.
    pub fn anonymous(&self) -> Client {
        Client::new(self.url(), None)
    }

    /// Returns the sum of a metric over all replicas of a service and the series with all these
    /// labels (`name="value"`).
    pub async fn counted(&self, service: &str, name: &str, labels: &[&str]) -> f64 {
        let mut sum = 0.0;
        for replica in self.replicas(service) {
            sum += replica.metric_value(service, name, labels).await;
        }
        sum
    }

    /// Returns the invariant report of a service. Panics on violations.
    pub async fn invariants(&self, service: &str) -> Value {
        let report = Client::new(self.admin_url(service), None).get("/invariants").attempt().await.expect("the admin port answers").json();
        assert_eq!((&report["ok"], &report["violations"]), (&json!(true), &json!([])), "{service}: {report}");
        report
    }
}

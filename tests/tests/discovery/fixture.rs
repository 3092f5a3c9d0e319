//! Test fixture: a shop with several products replicas behind a configurable discovery source.

use std::{process::Command, time::Duration};

use palisade_tests::{
    Client, Shop, eventually,
    load::{Load, reader},
    process::Program,
    servers::shared_mongo,
    shop::ALL_SCOPES,
    shop_helpers::create_product,
    unique,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Shop whose products process is the first replica.
pub(crate) struct Fixture {
    pub(crate) shop: Shop,
    store: String,
}

impl Fixture {
    /// Starts a shop in which gateway and orders discover products at `url`. `configure` is applied
    /// to the first replica.
    pub(crate) fn start(url: &str, configure: impl Fn(&mut Command)) -> Self {
        let store = shared_mongo().url(&unique("shop"));
        let shop = Shop::start_separate_with(Some(&store), None, |service, command| {
            command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "0").env("PALISADE_SERVER__ADDRESS_LIMIT__PER_SECOND", "0");
            if service == "products" {
                command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
                configure(command);
            } else {
                command.env("PALISADE_UPSTREAMS__PRODUCTS__URL", url);
                // The cap on concurrent retries denies more of them the slower the machine is.
                command.env("PALISADE_UPSTREAMS__PRODUCTS__RETRY__IN_FLIGHT_MIN", "1000");
            }
        });
        Self { shop, store }
    }

    /// Starts another replica and waits until it listens.
    pub(crate) fn add_replica(&self, configure: impl Fn(&mut Command)) -> Program {
        let replica = self.shop.additional_products(&self.store, |command| {
            command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "0").env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
            configure(command);
        });
        replica.url("products");
        replica
    }

    /// Starts readers of a new product.
    pub(crate) async fn start_load(&self) -> Load {
        self.start_load_with(6).await
    }

    /// Same as [`Self::start_load`], with this number of readers.
    pub(crate) async fn start_load_with(&self, readers: usize) -> Load {
        self.shop.ready().await;
        let seller = self.shop.client("seller", ALL_SCOPES);
        let product = create_product(&seller, 5).await;
        Load::start((0..readers).map(|_| reader(&seller, &format!("/products/{product}"))))
    }

    /// Waits until the gateway knows this number of endpoints and returns the elapsed time.
    pub(crate) async fn wait_for_endpoints(&self, endpoints: usize) -> Duration {
        let started = Instant::now();
        let known = format!("palisade_lb_endpoints{{target=\"products\"}} {endpoints}");
        let admin = self.shop.admin_url("gateway");
        eventually(async || metrics(&admin).await.lines().any(|line| line == known).then_some(())).await;
        started.elapsed()
    }

    /// Waits until the gateway's attempts have not failed for a second. Returns the time of the
    /// last failure, relative to the start of the wait.
    pub(crate) async fn wait_until_no_failures(&self) -> Duration {
        let started = Instant::now();
        let (mut known_failures, mut last_failure) = (None, started);
        let name = "grpc_client_attempt_duration_seconds_count{";
        eventually(async || {
            let metrics = metrics(&self.shop.admin_url("gateway")).await;
            let is_failure = |line: &&str| line.starts_with(name) && line.contains("grpc_target=\"products\"") && !line.contains("\"OK\"");
            let failures: f64 = metrics.lines().filter(is_failure).map(value).sum();
            if known_failures != Some(failures) {
                (known_failures, last_failure) = (Some(failures), Instant::now());
            }
            (last_failure.elapsed() > Duration::from_secs(1)).then_some(())
        })
        .await;
        last_failure.duration_since(started)
    }

    /// Returns the products dependency of the gateway's readiness report.
    pub(crate) async fn readiness(&self) -> Option<Value> {
        let report = Client::new(self.shop.admin_url("gateway"), None).get("/readyz").attempt().await.ok()?.json();
        report["dependencies"].as_array()?.iter().find(|dependency| dependency["name"] == "products").cloned()
    }
}

/// Returns the number of reads served by a replica.
pub(crate) async fn served_reads(replica: &Program) -> f64 {
    replica.metric_value("products", "rpc_server_call_duration_seconds_count", &[]).await
}

/// Waits until a replica serves reads and returns the elapsed time.
pub(crate) async fn wait_for_traffic(replica: &Program) -> Duration {
    let started = Instant::now();
    eventually(async || (served_reads(replica).await >= 1.0).then_some(())).await;
    started.elapsed()
}

/// Adds latency to each call of this replica.
pub(crate) async fn slow_down(replica: &Program, ms: u64) {
    let latency = json!({ "latency": { "ms": ms } });
    replica.set_faults("products", "palisade.products.v1.ProductsService/*", 1.0, Some(latency)).await;
}

async fn metrics(admin: &str) -> String {
    Client::new(admin, None).get("/metrics").attempt().await.unwrap().text()
}

fn value(line: &str) -> f64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

//! A shop whose products service has several replicas, found the way a test wants it.

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

/// The shop; its own products service is the first replica.
pub(crate) struct Scene {
    pub(crate) shop: Shop,
    store: String,
}

impl Scene {
    /// Gateway and orders look for products at `url`; `configure` is for the first replica.
    pub(crate) fn start(url: &str, configure: impl Fn(&mut Command)) -> Self {
        let store = shared_mongo().url(&unique("shop"));
        let shop = Shop::separate_with(Some(&store), None, |service, command| {
            command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "0").env("PALISADE_SERVER__ADDRESS_LIMIT__PER_SECOND", "0");
            if service == "products" {
                command.env("PALISADE_SERVER__FAULTS__ENABLED", "true");
                configure(command);
            } else {
                command.env("PALISADE_UPSTREAMS__PRODUCTS__URL", url);
            }
        });
        Self { shop, store }
    }

    /// One more replica, which listens when this is over.
    pub(crate) fn join(&self, configure: impl Fn(&mut Command)) -> Program {
        let replica = self.shop.another_products(&self.store, |command| {
            command.env("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "0").env("PALISADE_SERVER__FAULTS__ENABLED", "true");
            configure(command);
        });
        replica.url("products");
        replica
    }

    /// Readers of a product that was put on the shelf for them.
    pub(crate) async fn load(&self) -> Load {
        self.load_of(6).await
    }

    /// As [`Self::load`], with so many readers.
    pub(crate) async fn load_of(&self, readers: usize) -> Load {
        self.shop.ready().await;
        let seller = self.shop.client("seller", ALL_SCOPES);
        let product = create_product(&seller, 5).await;
        Load::start((0..readers).map(|_| reader(&seller, &format!("/products/{product}"))))
    }

    /// Waits until the gateway knows so many; how long that took.
    pub(crate) async fn knows(&self, endpoints: usize) -> Duration {
        let started = Instant::now();
        let known = format!("palisade_balance_endpoints{{target=\"products\"}} {endpoints}");
        let admin = self.shop.admin_url("gateway");
        eventually(async || metrics(&admin).await.lines().any(|line| line == known).then_some(())).await;
        started.elapsed()
    }

    /// Waits until the gateway has not failed to reach a replica for a second; how long after the start of that its last failure was.
    pub(crate) async fn reaches_all(&self) -> Duration {
        let (started, mut last, mut at) = (Instant::now(), None, Instant::now());
        let name = "grpc_client_attempt_duration_seconds_count{";
        loop {
            let metrics = metrics(&self.shop.admin_url("gateway")).await;
            let of_products = |line: &&str| line.starts_with(name) && line.contains("grpc_target=\"products\"") && !line.contains("\"OK\"");
            let failed: f64 = metrics.lines().filter(of_products).map(value).sum();
            if last != Some(failed) {
                (last, at) = (Some(failed), Instant::now());
            } else if at.elapsed() > Duration::from_secs(1) {
                return at.duration_since(started);
            }
        }
    }

    /// What the gateway says of its dependency products.
    pub(crate) async fn readiness(&self) -> Option<Value> {
        let report = Client::new(self.shop.admin_url("gateway"), None).get("/readyz").attempt().await.ok()?.json();
        report["dependencies"].as_array()?.iter().find(|dependency| dependency["name"] == "products").cloned()
    }
}

/// Reads that a replica has answered.
pub(crate) async fn reads(replica: &Program) -> f64 {
    replica.metric_value("products", "rpc_server_call_duration_seconds_count", &[]).await
}

/// Waits until a replica answers reads; how long that took.
pub(crate) async fn takes_traffic(replica: &Program) -> Duration {
    let started = Instant::now();
    eventually(async || (reads(replica).await >= 1.0).then_some(())).await;
    started.elapsed()
}

/// From now on each call of this replica takes so much longer.
pub(crate) async fn slow_down(replica: &Program, ms: u64) {
    let latency = json!({ "latency": { "ms": ms } });
    replica.faults("products", "palisade.products.v1.ProductsService/*", 1.0, Some(latency)).await;
}

async fn metrics(admin: &str) -> String {
    Client::new(admin, None).get("/metrics").attempt().await.unwrap().text()
}

fn value(line: &str) -> f64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

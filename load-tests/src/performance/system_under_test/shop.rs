//! Shop as a system under test: three processes with limits that are never reached.

use palisade_tests::{
    Shop,
    servers::{Mongo, Postgres},
    shop::{ALL_SCOPES, SERVICES},
};
use serde_json::json;

use super::{CACHED, MONGO, POSTGRES, Processes, Request, SystemUnderTest};
use crate::{environment::trust_scripts, performance::load_generator::CONNECTIONS};

/// Number of products, ordered in turn.
const PRODUCTS: usize = 50;
/// Units of each product.
const UNITS: u32 = 1_000_000;

/// Limits that are active but never reached: rate limits and concurrency.
const UNREACHED_LIMITS: [(&str, &str); 7] = [
    ("SERVER__RATE_LIMIT__PER_SECOND", "1000000"),
    ("SERVER__RATE_LIMIT__BURST", "1000000"),
    ("SERVER__ADDRESS_LIMIT__PER_SECOND", "1000000"),
    ("SERVER__ADDRESS_LIMIT__BURST", "1000000"),
    ("SERVER__ADAPTIVE_LIMIT__INITIAL_LIMIT", "1000"),
    ("SERVER__ADAPTIVE_LIMIT__MIN_LIMIT", "1000"),
    ("SERVER__ADAPTIVE_LIMIT__MAX_LIMIT", "1000"),
];

/// Starts a shop. `sampled` is the collector URL and the share of traces.
pub(super) async fn start(
    stores: &'static str,
    telemetry: &'static str,
    sampled: Option<(&str, &str)>,
    servers: Option<(&Postgres, &Mongo)>,
) -> (SystemUnderTest, Shop) {
    let database = palisade_tests::unique("performance").replace('-', "_");
    let urls = servers.map(|(postgres, mongo)| (mongo.url(&database), postgres.url(&database)));
    let (products_url, orders_url) = urls.as_ref().map(|(products, orders)| (products.as_str(), orders.as_str())).unzip();
    let shop = Shop::separate_with(products_url, orders_url, |service, command| {
        trust_scripts(command);
        command.envs(UNREACHED_LIMITS.map(|(name, value)| (format!("PALISADE_{name}"), value)));
        if stores == CACHED && service == "gateway" {
            command.env("PALISADE_CACHE__TTL_MS", "5000");
        }
        if let Some((collector, share)) = sampled {
            command.env("PALISADE_TELEMETRY__OTLP_ENDPOINT", collector).env("PALISADE_TELEMETRY__SAMPLE_RATIO", share);
        }
    });
    let seller = shop.client("seller", ALL_SCOPES);
    let mut products = Vec::new();
    for number in 0..PRODUCTS {
        let lamp = json!({ "name": format!("Lamp {number}"), "description": "To be measured.", "price": 19.99, "quantity": UNITS, "category": "load" });
        products.push(seller.post("/products", &lamp).await.ok(201)["id"].as_str().expect("a product has an id").to_owned());
    }
    let token = token();
    let request = |route, path: String, products, rate| Request {
        route,
        url: shop.url() + &path,
        token: token.clone(),
        products,
        connections: CONNECTIONS,
        rate,
    };
    let requests = vec![
        request("GET product", format!("/products/{}", products[0]), Vec::new(), 300),
        request("GET list", "/products?category=load&limit=20".to_owned(), Vec::new(), 200),
        request("POST order", "/orders".to_owned(), products, 50),
    ];
    let processes = Processes {
        services: SERVICES.map(|service| (service, shop.program(service).id())).into(),
        databases: servers
            .map(|(postgres, mongo)| vec![(POSTGRES, postgres.process_id()), (MONGO, mongo.process_id())])
            .unwrap_or_default(),
    };
    (SystemUnderTest { stores, telemetry, processes, requests }, shop)
}

/// Token that outlives the run.
fn token() -> String {
    let mut claims = palisade_tests::jwt::claims("buyer", ALL_SCOPES);
    claims["exp"] = (palisade_tests::jwt::now() + 4 * 3_600).into();
    palisade_tests::jwt::sign(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, palisade_tests::jwt::SECRET.as_bytes())
}

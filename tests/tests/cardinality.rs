//! Metric cardinality: client input (paths, methods, IDs, users) creates no series.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::collections::BTreeSet;

use futures_util::future::join_all;
use palisade_tests::{
    Client, Shop, jwt,
    random::Random,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, order_body, place_confirmed_order, product_body},
    unique,
};
use reqwest::Method;
use serde_json::json;

const SERVICES: [&str; 3] = ["gateway", "products", "orders"];
/// Number of random requests.
const REQUESTS: usize = 10_000;
/// Warm-up requests, enough to send each kind many times.
const WARM_UP_REQUESTS: usize = 600;
const SCANNERS: usize = 16;

/// Returns the series of a service: names and labels, without values.
async fn series(shop: &Shop, service: &str) -> BTreeSet<String> {
    let metrics = Client::new(shop.admin_url(service), None).get("/metrics").attempt().await.unwrap().text();
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// Client that sends requests with random users and unknown resources over the same connections.
struct Scanner {
    gateway: Client,
    services: [Client; 2],
    random: Random,
}

impl Scanner {
    fn new(shop: &Shop, random: Random) -> Self {
        let services = ["products", "orders"].map(|service| Client::new(shop.grpc_url(service), None).with_http2());
        Self { gateway: Client::new(shop.url(), None), services, random }
    }

    async fn send_random_request(&mut self, number: usize) {
        let (id, word) = (uuid::Uuid::new_v4(), unique("w").replace('-', ""));
        let user = format!("Bearer {}", jwt::token(&word, ALL_SCOPES));
        let gateway = &self.gateway;
        let request = match number % 10 {
            0 => gateway.get(format!("/{word}")),
            1 => gateway.get(format!("/products/{id}")).header("authorization", &user),
            2 => gateway.get(format!("/orders/{id}")).header("authorization", &user),
            3 => gateway.delete(format!("/products/{word}")).header("authorization", &user),
            4 => gateway.request(Method::from_bytes(word.to_uppercase().as_bytes()).unwrap(), format!("/orders/{id}")),
            // Fewer orders, because one costs as much as ten other requests.
            5 if number % 100 != 5 => gateway.post("/orders", &json!({ &word: id.to_string() })).header("authorization", &user),
            5 => gateway
                .post("/orders", &order_body(&[(&id.to_string(), 1)]))
                .header("authorization", &user)
                .header("idempotency-key", &word),
            6 => gateway.get(format!("/products?category={word}&cursor={word}")).header("authorization", &user),
            7 => {
                gateway.get("/orders").header("authorization", &user).header("host", format!("{word}.example")).header("user-agent", &word)
            }
            8 => gateway.post(format!("/{word}/{id}"), &json!({ "a": word })).header("x-request-id", &word),
            _ => {
                let path = if number % 20 == 9 {
                    format!("/{word}.Service/{word}")
                } else {
                    format!("/palisade.products.v1.ProductsService/{word}")
                };
                let service = self.random.choose(&self.services);
                let call = service.request(Method::POST, path).header("content-type", "application/grpc");
                if number % 40 == 9 { call } else { call.header("authorization", &user) }
            }
        };
        request.attempt().await.unwrap();
    }
}

/// Sends this number of requests, one at a time per scanner.
async fn scan(scanners: &mut [Scanner], requests: usize) {
    let each = requests / scanners.len();
    join_all(scanners.iter_mut().enumerate().map(async |(first, scanner)| {
        for number in 0..each {
            scanner.send_random_request(first + number).await;
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_create_no_series() {
    let shop = Shop::separate(None, None);
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let item = create_product(&seller, 5).await;
    place_confirmed_order(&buyer, &[(&item, 1)]).await;
    seller.put(format!("/products/{item}"), &product_body(1)).await.ok(200);

    let mut random = Random::from_environment();
    let mut scanners: Vec<_> = (0..SCANNERS).map(|_| Scanner::new(&shop, random.fork())).collect();
    scan(&mut scanners, WARM_UP_REQUESTS).await;
    let before = join_all(SERVICES.map(|service| series(&shop, service))).await;
    scan(&mut scanners, REQUESTS).await;
    for (service, before) in SERVICES.into_iter().zip(before) {
        let after = series(&shop, service).await;
        let new: Vec<_> = after.difference(&before).collect();
        assert!(new.is_empty(), "{service} has new series: {new:#?}");
        assert!(before.iter().any(|series| series.contains("_OTHER")), "{service} received no unknown method");
    }
}

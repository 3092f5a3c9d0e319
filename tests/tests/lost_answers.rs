//! Answers lost after the commit: a retry by our own client never turns what was applied into a
//! failed precondition or "not found".
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use palisade_tests::{
    Client, Response, Shop,
    client::Request,
    eventually,
    fault_proxy::{FaultProxy, Mode},
    shop::ALL_SCOPES,
    shop_helpers::{all_items, create_product, id_of, order_body, place_confirmed_order, product_body, set_status, with_changes},
    unique,
};
use serde_json::{Value, json};

/// A shop, and a gateway of its own whose connections to the services can be broken.
struct Fixture {
    shop: Shop,
    proxies: [FaultProxy; 2],
    /// Sees the shop undisturbed.
    observer: Client,
    /// Calls through the proxies.
    victim: Client,
    _gateway: palisade_tests::process::Program,
}

impl Fixture {
    async fn start() -> Self {
        let shop = Shop::separate(None, None);
        let address = |service: &str| shop.grpc_url(service).trim_start_matches("http://").parse().unwrap();
        let proxies = [FaultProxy::connect_to(address("products")).await, FaultProxy::connect_to(address("orders")).await];
        let gateway = shop.additional_gateway(|command| {
            for (service, proxy) in ["PRODUCTS", "ORDERS"].iter().zip(&proxies) {
                command.env(format!("PALISADE_UPSTREAMS__{service}__URL"), format!("http://{}", proxy.address()));
            }
        });
        let observer = shop.client("admin", &format!("{ALL_SCOPES} orders:admin"));
        let victim = Client::new(gateway.url("gateway"), observer.token().map(str::to_owned));
        let fixture = Self { shop, proxies, observer, victim, _gateway: gateway };
        fixture.connect().await;
        fixture
    }

    /// Waits until the victim reaches both services.
    async fn connect(&self) {
        for path in ["/products?limit=1", "/orders?limit=1"] {
            eventually(async || self.victim.get(path).attempt().await.ok().filter(|answer| answer.status == 200)).await;
        }
    }

    fn set(&self, mode: Mode) {
        self.proxies.iter().for_each(|proxy| proxy.set(mode));
    }

    /// Sends `request`, and breaks its connection once `is_applied`.
    async fn lose_answer(&self, request: Request, is_applied: impl AsyncFn() -> bool) -> Response {
        self.set(Mode::HoldAnswers);
        let sent = request.attempt();
        let broken = async {
            eventually(async || is_applied().await.then_some(())).await;
            self.set(Mode::Refuse);
            tokio::task::yield_now().await;
            self.set(Mode::Pass);
        };
        let (answer, ()) = tokio::join!(sent, broken);
        self.connect().await;
        answer.unwrap()
    }
}

/// The answer is that of the first attempt, or says that the outcome is unknown.
fn assert_answered_as_applied(case: &str, answer: &Response, expected: u16) {
    let status = answer.status.as_u16();
    assert!([expected, 503, 504].contains(&status), "{case}: {status} {}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_products_are_not_changed() {
    let fixture = Fixture::start().await;
    let Fixture { observer, victim, .. } = &fixture;
    let read = async |id: &str| observer.get(format!("/products/{id}")).attempt().await.unwrap();

    let product = create_product(observer, 5).await;
    let tag = read(&product).await.header("etag").unwrap().to_owned();
    let renamed = with_changes(product_body(5), &json!({ "name": "renamed" }));
    let update = victim.put(format!("/products/{product}"), &renamed).header("if-match", &tag);
    let answer = fixture.lose_answer(update, async || read(&product).await.json()["name"] == "renamed").await;
    assert_answered_as_applied("PUT with If-Match", &answer, 200);

    let changed = with_changes(product_body(7), &json!({ "name": "changed" }));
    let update = victim.put(format!("/products/{product}"), &changed);
    let answer = fixture.lose_answer(update, async || read(&product).await.json()["name"] == "changed").await;
    assert_answered_as_applied("PUT", &answer, 200);

    let tag = read(&product).await.header("etag").unwrap().to_owned();
    let patch = victim.request(reqwest::Method::PATCH, format!("/products/{product}")).json(r#"{"name": "patched"}"#);
    let patch = patch.header("if-match", &tag);
    let answer = fixture.lose_answer(patch, async || read(&product).await.json()["name"] == "patched").await;
    assert_answered_as_applied("PATCH with If-Match", &answer, 200);

    let adjust = || victim.post(format!("/products/{product}/stock-adjustments"), &json!({ "delta": -1, "reason": "damaged" }));
    let has_left = async |units: i64| read(&product).await.json()["quantity"] == units;
    let keyed = adjust().header("idempotency-key", unique("key"));
    let answer = fixture.lose_answer(keyed, async || has_left(6).await).await;
    assert_answered_as_applied("POST adjustment with key", &answer, 201);
    let answer = fixture.lose_answer(adjust(), async || has_left(5).await).await;
    assert_answered_as_applied("POST adjustment", &answer, 201);
    assert!(has_left(5).await, "an adjustment was repeated");

    let remove = victim.delete(format!("/products/{product}"));
    let answer = fixture.lose_answer(remove, async || read(&product).await.status == 404).await;
    assert_answered_as_applied("DELETE", &answer, 204);

    let category = unique("lost");
    let listed = async || all_items(observer, &format!("/products?category={category}")).await;
    let body = with_changes(product_body(1), &json!({ "category": category }));
    let create = victim.post("/products", &body).header("idempotency-key", unique("key"));
    let answer = fixture.lose_answer(create, async || !listed().await.is_empty()).await;
    assert_answered_as_applied("POST with key", &answer, 201);
    let created = listed().await;
    assert_eq!(created.len(), 1, "{created:?}");
    if answer.status == 201 {
        assert_eq!(id_of(&answer.json()), id_of(&created[0]));
    }

    let create = victim.post("/products", &body);
    let answer = fixture.lose_answer(create, async || listed().await.len() > 1).await;
    assert_answered_as_applied("POST", &answer, 201);
    assert_eq!(listed().await.len(), 2, "a create without a key was repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_orders_are_not_changed() {
    let fixture = Fixture::start().await;
    let Fixture { observer, victim, shop, .. } = &fixture;
    let product = create_product(&shop.client("seller", ALL_SCOPES), 100).await;
    let order = id_of(&place_confirmed_order(observer, &[(&product, 1)]).await);
    let status = async || observer.get(format!("/orders/{order}")).attempt().await.unwrap().json()["status"].clone();

    let read = async || observer.get(format!("/orders/{order}")).attempt().await.unwrap();
    let units = async || read().await.json()["items"][0]["quantity"].clone();
    let revise = victim.put(format!("/orders/{order}"), &order_body(&[(&product, 3)]));
    let answer = fixture.lose_answer(revise, async || units().await == 3).await;
    // 202: the revision goes on when its answer is lost.
    assert!([200, 202, 503, 504].contains(&answer.status.as_u16()), "PUT order: {} {}", answer.status, answer.text());
    let tag = eventually(async || {
        let answer = read().await;
        answer.json()["revision"].is_null().then(|| answer.header("etag").unwrap().to_owned())
    })
    .await;
    let cancel = set_status(victim, &order, "CANCELLED").header("if-match", &tag);
    let answer = fixture.lose_answer(cancel, async || status().await == "CANCELLED").await;
    assert_answered_as_applied("PUT status with If-Match", &answer, 200);

    // Administrators still see a removed order.
    let orders = async || all_items(observer, "/orders").await;
    let listed = async || orders().await.iter().any(|other| other["id"] == Value::String(order.clone()) && other["removedAt"].is_null());
    let tag = read().await.header("etag").unwrap().to_owned();
    let remove = victim.delete(format!("/orders/{order}")).header("if-match", &tag);
    let answer = fixture.lose_answer(remove, async || !listed().await).await;
    assert_answered_as_applied("DELETE with If-Match", &answer, 204);

    let before = orders().await.len();
    let create = victim.post("/orders", &order_body(&[(&product, 2)])).header("idempotency-key", unique("key"));
    let answer = fixture.lose_answer(create, async || orders().await.iter().any(|order| order["status"] == "CONFIRMED")).await;
    // 202: the retry does not wait for the first attempt, which may be on its way.
    assert!([201, 202, 503, 504].contains(&answer.status.as_u16()), "POST with key: {} {}", answer.status, answer.text());
    assert_eq!(orders().await.len(), before + 1, "the order was created once");
}

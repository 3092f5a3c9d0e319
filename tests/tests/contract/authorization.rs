//! Authorization: tokens, scopes, and ownership of orders.

use palisade_tests::{
    Client, Shop,
    client::Request,
    jwt,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, order_body, place_confirmed_order, product_body},
    unique,
};
use reqwest::Method;
use serde_json::{Value, json};

const ID: &str = "01990000-0000-7000-8000-000000000000";

type Route = (Method, String, Option<Value>, &'static str);

/// Routes that require a token, with their scope. The IDs do not exist: without the scope a client
/// must not learn even that.
fn routes() -> Vec<Route> {
    let one = |thing: &str| format!("/{thing}/{ID}");
    vec![
        (Method::POST, "/products".into(), Some(product_body(1)), "products:write"),
        (Method::GET, "/products".into(), None, "products:read"),
        (Method::GET, one("products"), None, "products:read"),
        (Method::GET, one("products") + "/history", None, "products:write"),
        (Method::PUT, one("products"), Some(product_body(1)), "products:write"),
        (Method::PATCH, one("products"), Some(json!({ "price": 1 })), "products:write"),
        (Method::DELETE, one("products"), None, "products:write"),
        (Method::POST, one("products") + "/stock-adjustments", Some(json!({ "delta": 1, "reason": "found" })), "products:write"),
        (Method::GET, one("products") + "/stock-adjustments", None, "products:write"),
        (Method::POST, "/orders".into(), Some(order_body(&[(ID, 1)])), "orders:write"),
        (Method::GET, "/orders".into(), None, "orders:read"),
        (Method::GET, one("orders"), None, "orders:read"),
        (Method::GET, one("orders") + "/history", None, "orders:read"),
        (Method::PUT, one("orders") + "/status", Some(json!({ "status": "CANCELLED" })), "orders:write"),
        (Method::DELETE, one("orders"), None, "orders:write"),
    ]
}

fn request_for_route(client: &Client, (method, path, body, _): &Route) -> Request {
    let request = client.request(method.clone(), path);
    match body {
        Some(body) => request.json(body.to_string()),
        None => request,
    }
}

#[tokio::test]
async fn routes_require_token() {
    let nobody = Shop::shared().anonymous();
    for route in routes() {
        let answer = request_for_route(&nobody, &route).await;
        answer.problem(401, "unauthenticated");
        let challenge = answer.header("www-authenticate").unwrap();
        // RFC 6750 §3.1: without a token the challenge has no error code.
        assert!(challenge.starts_with("Bearer ") && !challenge.contains("error"), "{challenge}");
    }
}

#[tokio::test]
async fn routes_require_exactly_their_scope() {
    let shop = Shop::shared();
    for route in routes() {
        let scope = route.3;
        // orders:admin extends access to other users' orders, it does not allow operations.
        let others: Vec<_> = ALL_SCOPES.split(' ').filter(|other| ![scope, "orders:admin"].contains(other)).collect();
        let answer = request_for_route(&shop.client("scopes", &others.join(" ")), &route).await;
        answer.problem(403, "insufficient_scope");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("error=\"insufficient_scope\"") && challenge.contains(scope), "{challenge}");
        let allowed = request_for_route(&shop.client("scopes", scope), &route).await;
        assert!(![401, 403].contains(&allowed.status.as_u16()), "{scope}: {}", allowed.text());
    }
}

#[tokio::test]
async fn scopes_are_compared_exactly() {
    let shop = Shop::shared();
    for scope in ["products:rea", "products:read2", "PRODUCTS:READ", "products", "*", "products:read,orders:read"] {
        shop.client("scopes", scope).get("/products").await.problem(403, "insufficient_scope");
    }
}

#[tokio::test]
async fn foreign_order_is_indistinguishable_from_missing() {
    let shop = Shop::shared();
    let (alice, mallory) = (shop.client(&unique("alice"), CUSTOMER), shop.client(&unique("mallory"), CUSTOMER));
    let admin = shop.client("admin", ALL_SCOPES);
    let product = create_product(&admin, 10).await;
    let id = id_of(&place_confirmed_order(&alice, &[(&product, 1)]).await);
    let routes = |id: &str| {
        let body = Some(json!({ "status": "CANCELLED" }));
        [(Method::GET, "", None), (Method::GET, "/history", None), (Method::PUT, "/status", body), (Method::DELETE, "", None)]
            .map(|(method, rest, body)| (method, format!("/orders/{id}{rest}"), body, ""))
    };
    for (theirs, missing) in routes(&id).iter().zip(&routes(ID)) {
        let bare = |mut problem: Value| {
            for member in ["instance", "requestId", "traceId"] {
                problem.as_object_mut().unwrap().remove(member);
            }
            problem
        };
        let (theirs, missing) = (
            request_for_route(&mallory, theirs).await.problem(404, "not_found"),
            request_for_route(&mallory, missing).await.problem(404, "not_found"),
        );
        assert_eq!(bare(theirs), bare(missing));
    }
    assert_eq!(alice.get(format!("/orders/{id}")).await.ok(200)["status"], "CONFIRMED");
    admin.get(format!("/orders/{id}")).await.ok(200);
}

#[tokio::test]
async fn scp_claim_may_be_a_list() {
    let shop = Shop::separate(None, None);
    let mut claims = jwt::claims("carol", "");
    claims["scp"] = json!(["orders:read", "products:read"]);
    claims.as_object_mut().unwrap().remove("scope");
    let header = json!({ "alg": "HS256", "typ": "at+jwt" });
    let token = jwt::sign(&header, &claims, jwt::SECRET.as_bytes());
    let carol = Client::new(shop.url(), Some(token));
    carol.get("/orders").await.ok(200);
    carol.post("/products", &product_body(1)).await.problem(403, "insufficient_scope");
}

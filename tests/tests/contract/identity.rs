//! Identity of callers: issuer and subject, from the token to the stored order and the open stream.

use std::{fs, process::Command};

use palisade_proto::orders::v1::{WatchOrderRequest, orders_service_client::OrdersServiceClient};
use palisade_tests::{
    Client, Shop, eventually,
    jwt::{self, SECRET, now, sign},
    process::run_with,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, order_body, order_request, place_confirmed_order, set_status, with_changes},
    sse::EventStream,
    unique,
};
use serde_json::{Value, json};
use tonic::{Code, Request};
use tonic_types::StatusExt;

const PARTNER: &str = "https://partner.palisade.invalid";
/// Time after the expiry of a token during which it is accepted, seconds.
const LEEWAY: i64 = 30;

fn token(changes: &Value) -> String {
    sign(&json!({ "alg": "HS256", "typ": "JWT" }), &with_changes(jwt::claims("1001", CUSTOMER), changes), SECRET.as_bytes())
}

fn client(shop: &Shop, changes: &Value) -> Client {
    Client::new(shop.url(), Some(token(changes)))
}

/// Adds the issuer `partner` with this setting.
fn add_partner(command: &mut Command, settings: &[(&str, &str)]) {
    let all = [&[("ISSUER", PARTNER), ("SECRET", SECRET)], settings].concat();
    command.envs(all.into_iter().map(|(key, value)| (format!("PALISADE_AUTH__ISSUERS__PARTNER__{key}"), value)));
}

#[tokio::test]
async fn equal_subs_of_two_issuers_are_two_users() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "gateway" {
            add_partner(command, &[("SUBJECT_PREFIX", "partner:"), ("ALLOWED_SCOPES", "orders:read orders:write products:read")]);
            command.envs([("PALISADE_SERVER__RATE_LIMIT__PER_SECOND", "1000"), ("PALISADE_SERVER__RATE_LIMIT__BURST", "1000")]);
        }
    });
    let product = create_product(&shop.client("seller", ALL_SCOPES), 10).await;
    let (own, partner) = (client(&shop, &json!({})), client(&shop, &json!({ "iss": PARTNER })));
    let body = order_body(&[(&product, 1)]);
    let order = |client: &Client| client.post("/orders", &body).header("idempotency-key", "one");
    let (first, second) = (order(&own).await, order(&partner).await);
    assert_eq!((second.header("idempotency-replayed"), second.status.as_u16()), (None, 201), "keys belong to one user");
    let (first, second) = (first.ok(201), second.ok(201));
    assert_eq!((&first["userId"], &second["userId"]), (&json!("1001"), &json!("partner:1001")));
    for (client, theirs, own) in [(&partner, &first, &second), (&own, &second, &first)] {
        client.get(format!("/orders/{}", id_of(theirs))).await.problem(404, "not_found");
        let page = client.get("/orders").await.ok(200);
        assert_eq!(page["items"].as_array().unwrap(), std::slice::from_ref(own));
    }
    // A sub of the issuer without a prefix that reads like a subject of the partner.
    client(&shop, &json!({ "sub": "partner:1001" })).get("/orders").await.problem(401, "unauthenticated");
    let admin = json!({ "iss": PARTNER, "scope": "orders:read orders:admin products:write" });
    client(&shop, &admin).get(format!("/orders/{}", id_of(&first))).await.problem(404, "not_found");
    client(&shop, &admin).delete(format!("/products/{product}")).await.problem(403, "insufficient_scope");
}

#[test]
fn issuers_that_share_subjects_are_refused() {
    let issuer = |name: &str, iss: &str| {
        let setting = |key: &str, value: &str| (format!("PALISADE_AUTH__ISSUERS__{name}__{key}"), value.to_owned());
        [setting("ISSUER", iss), setting("SECRET", SECRET)]
    };
    for (second, keys) in [
        (PARTNER, ["auth.issuers.second.subject_prefix", "auth.issuers.first"]),
        (jwt::ISSUER, ["auth.issuers.second.issuer", "auth.issuers.first.issuer"]),
    ] {
        let environment = [issuer("FIRST", jwt::ISSUER), issuer("SECOND", second)].concat();
        let output = run_with("gateway", &["--check-config"], environment);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && keys.into_iter().all(|key| text.contains(key)), "{text}");
    }
}

#[tokio::test]
async fn any_sub_without_control_characters_reads_and_writes() {
    let shop = Shop::separate(None, None);
    let product = create_product(&shop.client("seller", ALL_SCOPES), 10).await;
    for sub in ["Jane Doe", "auth0|5f7", "Zoë 日本", "\u{200b}", &"é".repeat(255)] {
        let client = client(&shop, &json!({ "sub": sub }));
        let order = place_confirmed_order(&client, &[(&product, 1)]).await;
        assert_eq!(order["userId"], sub);
        assert_eq!(client.get("/orders").await.ok(200)["items"], json!([order]));
    }
    for sub in ["", "a\nb", "a\u{0}", &"é".repeat(256)] {
        let client = client(&shop, &json!({ "sub": sub }));
        client.get("/orders").await.problem(401, "unauthenticated");
        order_request(&client, &[(&product, 1)]).await.problem(401, "unauthenticated");
    }
}

/// Shop whose gateway and orders trust the tests' issuer, with a revocation list. Returns the path
/// of the list.
fn shop_with_revocations() -> (Shop, tempfile::TempDir) {
    let directory = tempfile::TempDir::new().unwrap();
    let list = directory.path().join("revoked");
    fs::write(&list, "").unwrap();
    let shop = Shop::separate_with(None, None, |service, command| {
        command.env("PALISADE_AUTH__REVOCATIONS_FILE", &list);
        if service == "orders" {
            command.env("PALISADE_AUTH__ISSUERS__TESTS__ISSUER", jwt::ISSUER).env("PALISADE_AUTH__ISSUERS__TESTS__SECRET", SECRET);
        }
    });
    (shop, directory)
}

#[tokio::test]
async fn streams_end_with_their_token() {
    let (shop, directory) = shop_with_revocations();
    let product = create_product(&shop.client("seller", ALL_SCOPES), 10).await;
    let order = id_of(&place_confirmed_order(&client(&shop, &json!({})), &[(&product, 1)]).await);
    let ended = async |stream: &mut EventStream| {
        loop {
            let block = stream.next_block().await.expect("the last event names the reason");
            if let Some(problem) = block.strip_prefix("event: error\ndata: ") {
                assert_eq!(stream.next_block().await, None);
                return serde_json::from_str::<Value>(problem).unwrap();
            }
        }
    };
    let open = async |changes: &Value| EventStream::open(client(&shop, changes).get(format!("/orders/{order}/events"))).await;
    let channel = shop.grpc_channel("orders");
    let watch = async |changes: &Value| {
        let mut client = OrdersServiceClient::new(channel.clone());
        let mut request = Request::new(WatchOrderRequest { id: order.clone(), after_sequence: 0 });
        let changes = with_changes(changes.clone(), &json!({ "aud": "orders" }));
        request.metadata_mut().insert("authorization", format!("Bearer {}", token(&changes)).parse().unwrap());
        client.watch_order(request).await.unwrap().into_inner()
    };
    let last_status = async |stream: &mut tonic::Streaming<_>| {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };

    // Both tokens are accepted, and expire within seconds.
    let expiring = json!({ "exp": now() - LEEWAY + 3 });
    let (mut events, mut call) = (open(&expiring).await, watch(&expiring).await);
    let problem = ended(&mut events).await;
    assert_eq!((&problem["code"], &problem["status"]), (&json!("token_expired"), &json!(401)), "{problem}");
    let status = last_status(&mut call).await;
    assert_eq!((status.code(), &*status.get_error_details().error_info().unwrap().reason), (Code::Unauthenticated, "TOKEN_EXPIRED"));

    let lasting = json!({ "jti": "stolen" });
    let (mut events, mut call) = (open(&lasting).await, watch(&lasting).await);
    assert_eq!(events.next().await.unwrap().id_and_status().1, "CONFIRMED");
    fs::write(directory.path().join("revoked"), "jti stolen\n").unwrap();
    assert_eq!(ended(&mut events).await["code"], "unauthenticated");
    assert_eq!(last_status(&mut call).await.code(), Code::Unauthenticated);
    eventually(async || (client(&shop, &lasting).get("/orders").await.status == 401).then_some(())).await;
    client(&shop, &json!({})).get("/orders").await.ok(200);
}

#[tokio::test]
async fn deleted_order_stays_visible_to_administrators() {
    let shop = Shop::shared();
    let (buyer, admin) = (shop.client(&unique("buyer"), CUSTOMER), shop.client("admin", ALL_SCOPES));
    let product = create_product(&admin, 10).await;
    let order = place_confirmed_order(&buyer, &[(&product, 1)]).await;
    let (id, user) = (id_of(&order), order["userId"].as_str().unwrap());
    set_status(&admin, &id, "COMPLETED").await.ok(200);
    assert!(admin.get(format!("/orders/{id}")).await.ok(200)["removedAt"].is_null());
    buyer.delete(format!("/orders/{id}")).await.empty(204);

    buyer.get(format!("/orders/{id}")).await.problem(404, "not_found");
    buyer.get(format!("/orders/{id}/events")).await.problem(404, "not_found");
    set_status(&buyer, &id, "CANCELLED").await.problem(404, "not_found");
    buyer.delete(format!("/orders/{id}")).await.problem(404, "not_found");
    assert_eq!(buyer.get("/orders").await.ok(200)["items"], json!([]));

    let shown = admin.get(format!("/orders/{id}")).await.ok(200);
    assert_eq!((&shown["status"], &shown["removedBy"]), (&json!("COMPLETED"), &json!(user)));
    assert!(shown["removedAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{shown}");
    assert_eq!(admin.get(format!("/orders?userId={user}")).await.ok(200)["items"], json!([shown]));
}

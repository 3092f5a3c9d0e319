//! `palisade erase`: no data of the subject is left in the stores and in the archive.

use std::process::Output;

use palisade_tests::{
    Client, Shop, eventually,
    process::run_with,
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, create_product, id_of, order_body, place_confirmed_order, product_body, set_status},
};
use serde_json::{Value, json};

const SUBJECT: &str = "auth0|subject-4711";

/// Runs the command and returns its output, which must not name the subject.
fn erase(arguments: &[&str], environment: &[(&str, String)]) -> Output {
    let arguments = [arguments, &["erase", "--subject", SUBJECT]].concat();
    let output = run_with("palisade", &arguments, environment.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(SUBJECT), "{text}");
    output
}

/// Returns the rows of the printed table: store, data and count.
fn counts(output: &Output) -> Vec<(String, u64)> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let row = |line: &str| {
        let (name, count) = line.rsplit_once(' ')?;
        Some((name.split_whitespace().collect::<Vec<_>>().join(" "), count.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

fn count(counts: &[(String, u64)], name: &str) -> u64 {
    counts.iter().find(|(row, _)| row == name).unwrap_or_else(|| panic!("{name}: {counts:?}")).1
}

async fn owner(admin: &Client, order: &str) -> Value {
    admin.get(format!("/orders/{order}")).await.ok(200)["userId"].clone()
}

/// Erases the subject of a running shop, whose stores the arguments and the environment name.
async fn erase_from_running_shop(shop: &Shop, arguments: &[&str], environment: &[(&str, String)]) {
    let (seller, buyer) = (shop.client(SUBJECT, ALL_SCOPES), shop.client(SUBJECT, CUSTOMER));
    let (admin, other) = (shop.client("admin", ALL_SCOPES), shop.client("somebody-else", CUSTOMER));
    let product = id_of(&seller.post("/products", &product_body(50)).header("idempotency-key", "product").await.ok(201));
    let cancelled = accepted_id(&buyer.post("/orders", &order_body(&[(&product, 2)])).header("idempotency-key", "order").await);
    let confirmed = id_of(&place_confirmed_order(&buyer, &[(&product, 1)]).await);
    let kept = id_of(&place_confirmed_order(&other, &[(&product, 1)]).await);
    set_status(&buyer, &cancelled, "CANCELLED").await.ok(200);

    // The cancelled order is in progress, too, until its units are released.
    let refusal = async || {
        let refused = erase(arguments, environment);
        assert!(!refused.status.success());
        String::from_utf8(refused.stderr).unwrap().contains("orders in progress, 1 in all (1 CONFIRMED)").then_some(())
    };
    eventually(refusal).await;
    assert_eq!(owner(&admin, &cancelled).await, SUBJECT, "nothing is changed");

    set_status(&buyer, &confirmed, "CANCELLED").await.ok(200);
    let output = eventually(async || Some(erase(arguments, environment)).filter(|output| output.status.success())).await;
    let erased = counts(&output);
    assert_eq!(count(&erased, "orders orders with another owner"), 2);
    assert_eq!(count(&erased, "orders idempotency keys"), 1);
    assert_eq!(count(&erased, "products idempotency keys"), 1);
    assert_eq!(count(&erased, "products entries of the stock ledger"), 1);
    assert_eq!(count(&erased, "products history entries"), 1);
    assert!(count(&erased, "orders events") >= 8);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("operator erased the data of a subject") && log.contains("erased:"), "{log}");
    assert!(counts(&erase(arguments, environment)).iter().all(|(_, count)| *count == 0), "a repetition finds nothing");

    let pseudonym = owner(&admin, &cancelled).await;
    assert!(pseudonym.as_str().unwrap().starts_with("erased:"), "{pseudonym}");
    assert_eq!((owner(&admin, &confirmed).await, owner(&admin, &kept).await), (pseudonym.clone(), json!("somebody-else")));
    let history = admin.get(format!("/products/{product}/history")).await.ok(200);
    assert_eq!(history["items"][0]["actor"], pseudonym);
    assert_eq!(buyer.get("/orders").await.ok(200)["items"], json!([]));
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
    // The shop goes on, with the same key for another order.
    let again = accepted_id(&buyer.post("/orders", &order_body(&[(&product, 2)])).header("idempotency-key", "order").await);
    assert_ne!(again, cancelled);
}

#[tokio::test]
async fn embedded_stores_forget_a_subject() {
    let shop = Shop::all_in_one();
    let directory = shop.directory().to_str().unwrap().to_owned();
    erase_from_running_shop(&shop, &["--data-dir", &directory], &[]).await;
}

#[tokio::test]
async fn database_servers_forget_a_subject() {
    let (postgres, mongo) = (servers::postgres(), servers::mongo());
    let (orders, products) = (postgres.url("orders"), mongo.url("products"));
    let shop = Shop::separate(Some(&products), Some(&orders));
    let environment = [("PALISADE_ORDERS__STORE__URL", orders), ("PALISADE_PRODUCTS__STORE__URL", products)];
    erase_from_running_shop(&shop, &[], &environment).await;
}

#[tokio::test]
async fn invalid_erasures_are_explained() {
    let shop = Shop::shared();
    create_product(&shop.client("seller", ALL_SCOPES), 1).await;
    for (arguments, expected) in [
        (vec!["erase"], "--subject"),
        (vec!["erase", "--subject", ""], "must not be empty"),
        (vec!["--check-config", "erase", "--subject", "x"], "have no effect"),
    ] {
        let output = run_with("palisade", &arguments, []);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(expected), "{arguments:?}: {text}");
    }
}

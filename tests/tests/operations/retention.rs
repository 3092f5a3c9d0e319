//! Retention of orders and their archive.

use std::{fs, os::unix::fs::PermissionsExt};

use palisade_tests::{
    Shop, eventually,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{create_product, id_of, order_request, place_confirmed_order, set_status},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::sqlite3;

#[tokio::test]
async fn old_settled_orders_are_archived_and_deleted() {
    let archive = TempDir::new().unwrap();
    let mut shop = Shop::separate_with(None, None, |service, command| {
        if service == "orders" {
            command.env("PALISADE_RETENTION__ARCHIVE_DIR", archive.path());
        }
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 10).await;
    let refusal = order_request(&buyer, &[(&product, 11)]).await.problem(409, "insufficient_stock");
    let refused = refusal["orderId"].as_str().unwrap().to_owned();
    let cancelled = id_of(&place_confirmed_order(&buyer, &[(&product, 2)]).await);
    let confirmed = id_of(&place_confirmed_order(&buyer, &[(&product, 3)]).await);
    set_status(&buyer, &cancelled, "CANCELLED").await.ok(200);
    let database = shop.directory().join("orders.db");
    let pending =
        "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL) + (SELECT count(*) FROM orders WHERE due_at IS NOT NULL)";
    eventually(async || (sqlite3(&database, pending) == "0").then_some(())).await;

    // Two years and a day later. Only the guard of the schema keeps the time of a change.
    shop.program_mut("orders").kill();
    let guard = sqlite3(&database, "SELECT sql FROM sqlite_schema WHERE name = 'guard_order'");
    let aged = "UPDATE orders SET created_at = created_at - 63158400000, updated_at = updated_at - 63158400000";
    sqlite3(&database, &format!("DROP TRIGGER guard_order; {aged}; {guard}"));
    shop.program_mut("orders").restart();
    shop.ready().await;
    for order in [&refused, &cancelled] {
        eventually(async || (seller.get(format!("/orders/{order}")).await.status == 404).then_some(())).await;
    }
    assert_eq!(buyer.get(format!("/orders/{confirmed}")).await.ok(200)["status"], "CONFIRMED");

    let files: Vec<_> = fs::read_dir(archive.path()).unwrap().map(|file| file.unwrap().path()).collect();
    let file = files.iter().find(|path| path.extension().is_some_and(|extension| extension == "ndjson")).unwrap();
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut archived: Vec<Value> = lines.iter().map(|line| json!([line["id"], line["userId"], line["reservation"]])).collect();
    archived.sort_by_key(ToString::to_string);
    let mut expected = vec![json!([refused, "buyer", "REFUSED"]), json!([cancelled, "buyer", "RELEASED"])];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(archived, expected);
    eventually(async || {
        (shop.counted("orders", "palisade_store_deleted_rows_total", &["collection=\"orders\""]).await >= 2.0).then_some(())
    })
    .await;
    shop.invariants("orders").await;
}

#[tokio::test]
async fn missing_archive_fails_only_its_job() {
    let shop = Shop::all_in_one_with(|command| {
        command.env("PALISADE_ORDERS__RETENTION__ARCHIVE_DIR", "/no/such/directory");
    });
    let failures = async || shop.counted("orders", "palisade_job_failures", &["name=\"orders.retention\""]).await;
    eventually(async || (failures().await > 0.0).then_some(())).await;
    let named = |line: &str| (line.contains("orders.retention") && line.contains("/no/such/directory")).then_some(());
    shop.program("orders").wait_for_line(named).unwrap();
}

//! Backup and restore: one store is restored to an older state than the other. The audit reports
//! the contradictions, an operator repairs them, and the audit is clean.

use std::{fs, path::Path};

use palisade_tests::{
    Client, Response, Shop, eventually, servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{available_quantity, create_product, id_of, order_body, place_confirmed_order, set_status, wait_for_quantity},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const SIGNED: [(&str, &str); 2] = [("operator", "jane"), ("reason", "backup restored")];

/// A shop whose stores can be saved and restored.
struct Restorable<'a> {
    shop: Shop,
    /// Saves a store while its service runs.
    save: Box<dyn FnMut() + 'a>,
    /// Restores the saved store while its service is stopped.
    restore: Box<dyn FnMut() + 'a>,
    service: &'static str,
}

impl Restorable<'_> {
    async fn restore(&mut self) {
        self.shop.program_mut(self.service).kill();
        (self.restore)();
        self.shop.program_mut(self.service).restart();
        self.shop.ready().await;
    }
}

async fn revise(buyer: &Client, order: &str, product: &str, quantity: i64) {
    buyer.put(format!("/orders/{order}"), &order_body(&[(product, quantity)])).await.ok(200);
}

async fn report(shop: &Shop) -> Value {
    let admin = Client::new(shop.admin_url("orders"), None);
    // Right after its restart products may not answer yet.
    eventually(async || admin.get("/invariants").attempt().await.ok().filter(|answer| answer.status == 200)).await.json()
}

/// Returns the ids of the mismatches of this kind.
fn mismatches(report: &Value, kind: &str) -> Vec<String> {
    let all = report["reservations"]["mismatches"].as_array().unwrap();
    let mut ids: Vec<_> = all.iter().filter(|mismatch| mismatch["kind"] == kind).map(id_of).collect();
    ids.sort();
    ids
}

async fn repair(shop: &Shop, id: &str) -> Response {
    let admin = Client::new(shop.admin_url("orders"), None);
    admin.post(format!("/reservations/{id}/repair"), &json!(std::collections::BTreeMap::from(SIGNED))).attempt().await.unwrap()
}

async fn repaired(shop: &Shop, id: &str) -> (u16, String) {
    let answer = repair(shop, id).await;
    (answer.status.as_u16(), answer.json()["outcome"].as_str().unwrap().to_owned())
}

fn sorted(ids: &[&String]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
    ids.sort();
    ids
}

/// Orders is older than products: reservations without an order, and orders that do not know their
/// end.
async fn restore_older_orders(mut shop: Restorable<'_>) {
    shop.shop.ready().await;
    let (seller, buyer) = (shop.shop.client("seller", ALL_SCOPES), shop.shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 100).await;
    let order = async |buyer: &Client, quantity| id_of(&place_confirmed_order(buyer, &[(&product, quantity)]).await);
    let (kept, to_complete, to_cancel) = (order(&buyer, 1).await, order(&buyer, 2).await, order(&buyer, 4).await);
    let revised = order(&buyer, 1).await;
    (shop.save)();
    revise(&buyer, &revised, &product, 3).await;
    let lost = [order(&buyer, 8).await, order(&buyer, 16).await];
    set_status(&seller, &to_complete, "COMPLETED").await.ok(200);
    set_status(&buyer, &to_cancel, "CANCELLED").await.ok(200);
    eventually(async || (available_quantity(&seller, &product).await == 100 - 1 - 2 - 3 - 8 - 16).then_some(())).await;
    let fulfilled = async || shop.shop.counted("products", "palisade_stock_reservations_total", &["fulfilled"]).await;
    eventually(async || (fulfilled().await > 0.0).then_some(())).await;
    shop.restore().await;
    let shop = &shop.shop;

    let before = report(shop).await;
    assert_eq!(before["ok"], false, "{before}");
    assert_eq!(mismatches(&before, "reservation_without_order"), sorted(&[&lost[0], &lost[1]]), "{before}");
    assert_eq!(mismatches(&before, "order_without_reservation"), sorted(&[&to_complete, &to_cancel]), "{before}");
    for id in &lost {
        assert_eq!(repaired(shop, id).await, (200, "released".into()));
        assert_eq!(repair(shop, id).await.status, 404, "it is released once");
    }
    assert_eq!(available_quantity(&seller, &product).await, 100 - 1 - 2 - 3);
    assert_eq!(mismatches(&before, "other_lines"), sorted(&[&revised]), "{before}");
    // Their units are not reserved again: they left the stock, were given back, or belong to a
    // later revision.
    let refusals = [(&to_complete, "reservation_fulfilled"), (&to_cancel, "reservation_released"), (&revised, "reservation_revised")];
    for (id, reason) in refusals {
        let refused = repair(shop, id).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["reason"]), (409, &json!(reason)));
    }
    set_status(&seller, &to_complete, "COMPLETED").await.ok(200);
    set_status(&buyer, &to_cancel, "CANCELLED").await.ok(200);
    buyer.put(format!("/orders/{revised}"), &order_body(&[(&product, 4)])).await.problem(409, "reservation_expired");
    set_status(&buyer, &revised, "CANCELLED").await.ok(200);
    assert_eq!(repaired(shop, &kept).await, (200, "consistent".into()));
    wait_for_quantity(&seller, &product, 100 - 1 - 2).await;
    finish(shop).await;
    let logged = |line: &str| (line.contains("operator repaired a reservation") && line.contains("jane")).then_some(());
    shop.program("orders").wait_for_line(logged).unwrap();
    assert!(shop.counted("orders", "palisade_invariant_repairs_total", &["outcome=\"released\""]).await >= 2.0);
}

/// Products is older than orders: confirmed orders without a reservation, and reservations that do
/// not know the end of their order.
async fn restore_older_products(mut shop: Restorable<'_>) {
    shop.shop.ready().await;
    let (seller, buyer) = (shop.shop.client("seller", ALL_SCOPES), shop.shop.client("buyer", CUSTOMER));
    let (product, scarce) = (create_product(&seller, 100).await, create_product(&seller, 5).await);
    let order = async |product: &String, quantity| id_of(&place_confirmed_order(&buyer, &[(product, quantity)]).await);
    let (kept, completed, cancelled) = (order(&product, 1).await, order(&product, 2).await, order(&product, 4).await);
    let revised = order(&product, 1).await;
    (shop.save)();
    revise(&buyer, &revised, &product, 3).await;
    let (lost, unlucky) = (order(&product, 8).await, order(&scarce, 5).await);
    set_status(&seller, &completed, "COMPLETED").await.ok(200);
    set_status(&buyer, &cancelled, "CANCELLED").await.ok(200);
    let fulfilled = async || shop.shop.counted("products", "palisade_stock_reservations_total", &["fulfilled"]).await;
    eventually(async || (fulfilled().await > 0.0).then_some(())).await;
    eventually(async || (available_quantity(&seller, &product).await == 100 - 1 - 2 - 8 - 3).then_some(())).await;
    shop.restore().await;
    let shop = &shop.shop;
    // Another customer was faster.
    let taken = eventually(async || {
        let order = buyer.post("/orders", &order_body(&[(&scarce, 1)])).attempt().await.ok()?;
        (order.status == 201).then(|| order.json())
    });
    let taken = id_of(&taken.await);

    let before = report(shop).await;
    assert_eq!(mismatches(&before, "order_without_reservation"), sorted(&[&lost, &unlucky]), "{before}");
    assert_eq!(mismatches(&before, "reservation_not_ended"), sorted(&[&completed, &cancelled]), "{before}");
    assert_eq!(mismatches(&before, "other_lines"), sorted(&[&revised]), "{before}");
    for id in [&lost, &revised] {
        assert_eq!(repaired(shop, id).await, (200, "reserved".into()));
    }
    assert_eq!(repaired(shop, &completed).await, (200, "fulfilled".into()));
    assert_eq!(repaired(shop, &cancelled).await, (200, "released".into()));
    let refused = repair(shop, &unlucky).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["reason"]), (409, &json!("insufficient_stock")));
    set_status(&buyer, &unlucky, "CANCELLED").await.ok(200);
    for id in [&kept, &taken, &lost, &revised] {
        assert_eq!(repaired(shop, id).await, (200, "consistent".into()));
    }
    finish(shop).await;
    assert_eq!(available_quantity(&seller, &product).await, 100 - 1 - 2 - 8 - 3);
    assert_eq!(available_quantity(&seller, &scarce).await, 5 - 1);
}

/// Waits until both audits are clean.
async fn finish(shop: &Shop) {
    eventually(async || (report(shop).await["ok"] == true).then_some(())).await;
    for service in ["products", "orders"] {
        shop.invariants(service).await;
    }
}

/// Saves an embedded store as documented: never by copying the file of a running service.
fn vacuum_into(database: &Path, copy: &Path) {
    let _ = fs::remove_file(copy);
    crate::sqlite3(database, &format!("VACUUM INTO '{}'", copy.display()));
}

fn embedded(service: &'static str, backup: &Path) -> Restorable<'static> {
    let shop = Shop::separate(None, None);
    let database = shop.directory().join(format!("{service}.db"));
    let copy = backup.join("copy.db");
    let (from, to) = (database.clone(), copy.clone());
    let restore = move || {
        for side_file in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{side_file}", database.display()));
        }
        fs::copy(&copy, &database).unwrap();
    };
    Restorable { shop, save: Box::new(move || vacuum_into(&from, &to)), restore: Box::new(restore), service }
}

#[tokio::test]
async fn older_embedded_orders_are_repaired() {
    let backup = TempDir::new().unwrap();
    restore_older_orders(embedded("orders", backup.path())).await;
}

#[tokio::test]
async fn older_embedded_products_are_repaired() {
    let backup = TempDir::new().unwrap();
    restore_older_products(embedded("products", backup.path())).await;
}

#[tokio::test]
async fn older_postgres_is_repaired() {
    let backup = TempDir::new().unwrap();
    let (postgres, mongo) = (servers::postgres(), servers::mongo());
    let shop = Shop::separate(Some(&mongo.url("products")), Some(&postgres.url("orders")));
    let file = backup.path().join("orders.dump");
    let save = || postgres.dump("orders", &file);
    let restore = || postgres.restore("orders", &file);
    restore_older_orders(Restorable { shop, save: Box::new(save), restore: Box::new(restore), service: "orders" }).await;
}

#[tokio::test]
async fn older_mongo_is_repaired() {
    let backup = TempDir::new().unwrap();
    let (postgres, mongo) = (servers::postgres(), std::cell::RefCell::new(servers::durable_mongo()));
    let url = mongo.borrow().url("products");
    let shop = Shop::separate(Some(&url), Some(&postgres.url("orders")));
    let copy = backup.path().join("mongo");
    let save = || mongo.borrow_mut().snapshot(&copy);
    let restore = || mongo.borrow_mut().restore(&copy);
    restore_older_products(Restorable { shop, save: Box::new(save), restore: Box::new(restore), service: "products" }).await;
}

//! Filters of order lists over HTTP: products, times, and the orders of all users.

use palisade_tests::{
    Client, Shop,
    client::query,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{all_items, create_product, id_of, place_confirmed_order},
    unique,
};
use serde_json::Value;

async fn listed(client: &Client, pairs: &[(&str, &str)]) -> Vec<String> {
    all_items(client, &format!("/orders{}", query(pairs))).await.iter().map(id_of).collect()
}

/// Three confirmed orders of alice, of one product, of the other and of both, then one of bob, of
/// the other.
struct Fixture {
    admin: Client,
    alice: Client,
    alice_name: String,
    products: [String; 2],
    orders: Vec<Value>,
}

impl Fixture {
    async fn create() -> Self {
        let shop = Shop::shared();
        let (admin, alice_name) = (shop.client("admin", ALL_SCOPES), unique("alice"));
        let (alice, bob) = (shop.client(&alice_name, CUSTOMER), shop.client(&unique("bob"), CUSTOMER));
        let products = [create_product(&admin, 10).await, create_product(&admin, 10).await];
        let (first, second) = ((products[0].as_str(), 1), (products[1].as_str(), 1));
        let mut orders = Vec::new();
        for (buyer, lines) in [(&alice, vec![first]), (&alice, vec![second]), (&alice, vec![first, second]), (&bob, vec![second])] {
            orders.push(place_confirmed_order(buyer, &lines).await);
        }
        Self { admin, alice, alice_name, products, orders }
    }

    /// Returns the ids of the orders with these numbers.
    fn ids(&self, numbers: &[usize]) -> Vec<String> {
        numbers.iter().map(|number| id_of(&self.orders[*number])).collect()
    }

    fn created_at(&self, number: usize) -> &str {
        self.orders[number]["createdAt"].as_str().unwrap()
    }
}

#[tokio::test]
async fn orders_are_filtered_by_product_and_time() {
    let shop = Fixture::create().await;
    let [first, second] = shop.products.each_ref().map(String::as_str);
    let (alice, admin) = (&shop.alice, &shop.admin);
    assert_eq!(listed(alice, &[("productId", first)]).await, shop.ids(&[2, 0]));
    assert_eq!(listed(alice, &[("productId", second), ("limit", "1")]).await, shop.ids(&[2, 1]));
    assert_eq!(listed(alice, &[("productId", second), ("status", "CANCELLED")]).await, [] as [String; 0]);
    assert_eq!(listed(alice, &[("createdFrom", shop.created_at(1))]).await, shop.ids(&[2, 1]));
    assert_eq!(listed(alice, &[("createdTo", shop.created_at(1))]).await, shop.ids(&[0]));
    assert_eq!(listed(alice, &[("createdFrom", shop.created_at(1)), ("createdTo", shop.created_at(2))]).await, shop.ids(&[1]));
    assert_eq!(listed(alice, &[("createdFrom", shop.created_at(1)), ("createdTo", shop.created_at(1))]).await, [] as [String; 0]);
    let all = [("userId", "*"), ("productId", second), ("limit", "2")];
    assert_eq!(listed(admin, &all).await, shop.ids(&[3, 2, 1]));
    assert_eq!(listed(admin, &[all[0], all[1], ("createdTo", shop.created_at(3))]).await, shop.ids(&[2, 1]));
    assert_eq!(listed(admin, &[all[0], all[1], ("status", "CONFIRMED"), ("limit", "1")]).await, shop.ids(&[3, 2, 1]));
    assert_eq!(listed(admin, &[("userId", &shop.alice_name), ("productId", first)]).await, shop.ids(&[2, 0]));
    assert!(listed(admin, &[("userId", "*"), ("createdFrom", shop.created_at(0))]).await.len() >= 4);
}

#[tokio::test]
async fn listing_all_users_requires_admin() {
    let shop = Shop::shared();
    shop.client("alice", CUSTOMER).get("/orders?userId=*").await.problem(403, "insufficient_scope");
    shop.client("admin", ALL_SCOPES).get("/orders?userId=*&limit=1").await.ok(200);
}

#[tokio::test]
async fn cursor_of_orders_is_bound_to_every_filter() {
    let shop = Fixture::create().await;
    let product = shop.products[1].as_str();
    let (from, to) = (shop.created_at(0), "2100-01-01T00:00:00Z");
    let filters = [("userId", "*"), ("status", "CONFIRMED"), ("productId", product), ("createdFrom", from), ("createdTo", to)];
    let page = shop.admin.get(format!("/orders{}", query(&[&filters[..], &[("limit", "1")]].concat()))).await.ok(200);
    let cursor = ("cursor", page["nextCursor"].as_str().unwrap());
    let path = |filters: &[(&str, &str)]| format!("/orders{}", query(&[filters, &[cursor]].concat()));
    shop.admin.get(path(&filters)).await.ok(200);
    for left_out in 0..filters.len() {
        let others: Vec<_> = (0..filters.len()).filter(|number| *number != left_out).map(|number| filters[number]).collect();
        shop.admin.get(path(&others)).await.problem(400, "invalid_cursor");
    }
    // Another spelling of the same time.
    let spelled = to.replace('Z', "+00:00");
    shop.admin.get(path(&[&filters[..4], &[("createdTo", spelled.as_str())]].concat())).await.ok(200);
}

#[tokio::test]
async fn invalid_filters_of_orders_are_rejected() {
    let alice = Shop::shared().client("alice", CUSTOMER);
    for pairs in [
        &[("productId", "1")][..],
        &[("productId", "")],
        &[("productId", "01890a5dac96774bbcceb302099a8057")],
        &[("createdFrom", "2026-01-31")],
        &[("createdFrom", "2026-01-31T12:00:00")],
        &[("createdTo", "2026-02-30T12:00:00Z")],
        &[("createdTo", "0000-01-01T00:00:00Z")],
        &[("createdTo", "9999-12-31T23:59:59-01:00")],
        &[("createdTo", "1767225600")],
        &[("createdFrom", "2026-01-02T00:00:00Z"), ("createdTo", "2026-01-01T00:00:00Z")],
    ] {
        alice.get(format!("/orders{}", query(pairs))).await.problem(400, "invalid_parameter");
    }
}

//! Lists: filters, sort order, and keyset pagination that neither skips nor repeats items during
//! inserts.

use std::collections::BTreeSet;

use palisade_tests::{
    Client, Shop,
    client::query,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{all_items, create_product, id_of, order_body, place_confirmed_order, product_body, set_status, with_changes},
    unique,
};
use serde_json::{Value, json};

fn names(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["name"].as_str().unwrap()).collect()
}

/// Pairs of a query string.
type Filter<'a> = &'a [(&'a str, &'a str)];

/// Creates three products (name, price, active) in a unique category and returns the category.
async fn create_three_products(seller: &Client) -> String {
    let category = unique("shelf");
    for (name, price, active) in [("Banana 100%", 3.0, true), ("apple", 1.5, true), ("Cherry_pie", 2.25, false)] {
        let change = json!({ "name": name, "price": price, "isActive": active, "category": category, "description": "Sweet and RIPE" });
        seller.post("/products", &with_changes(product_body(1), &change)).await.ok(201);
    }
    category
}

#[tokio::test]
async fn products_are_filtered_and_sorted() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let category = create_three_products(&seller).await;
    let (banana, apple, cherry) = ("Banana 100%", "apple", "Cherry_pie");
    let cases: &[(Filter, &[&str])] = &[
        (&[], &[cherry, apple, banana]),
        (&[("sort", "newest")], &[cherry, apple, banana]),
        (&[("sort", "oldest")], &[banana, apple, cherry]),
        (&[("sort", "price_asc")], &[apple, cherry, banana]),
        (&[("sort", "price_desc")], &[banana, cherry, apple]),
        (&[("isActive", "true")], &[apple, banana]),
        (&[("isActive", "false")], &[cherry]),
        (&[("minPrice", "2.25")], &[cherry, banana]),
        (&[("maxPrice", "2.25")], &[cherry, apple]),
        (&[("minPrice", "1.51"), ("maxPrice", "2.99")], &[cherry]),
        (&[("q", "APPLE")], &[apple]),
        (&[("q", "ripe"), ("sort", "oldest")], &[banana, apple, cherry]),
        (&[("q", "0%")], &[banana]),
        (&[("q", "y_p")], &[cherry]),
        (&[("q", ".*")], &[]),
    ];
    for (filter, expected) in cases {
        let pairs = [&[("category", category.as_str())], *filter].concat();
        let page = seller.get(format!("/products{}", query(&pairs))).await.ok(200);
        assert_eq!(names(page["items"].as_array().unwrap()), *expected, "{filter:?}");
        assert_eq!(page["nextCursor"], Value::Null);
    }
}

#[tokio::test]
async fn pages_are_stable_under_concurrent_inserts() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let category = unique("growing");
    let add_product =
        async || id_of(&seller.post("/products", &with_changes(product_body(1), &json!({ "category": category }))).await.ok(201));
    for sort in ["newest", "oldest", "price_asc", "price_desc", "name_asc", "name_desc"] {
        let mut before = BTreeSet::new();
        for _ in 0..7 {
            before.insert(add_product().await);
        }
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = seller.get(format!("/products?category={category}&sort={sort}&limit=2{cursor}")).await.ok(200);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            seen.extend(items.iter().map(id_of));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // Bounded, because behind the cursor of "oldest" there would always be one more.
            if seen.len() < 8 {
                add_product().await;
            }
        }
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "{sort} repeats items");
        assert!(distinct.is_superset(&before), "{sort} skips items");
    }
}

#[tokio::test]
async fn cursor_is_valid_only_for_its_query() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let category = create_three_products(&seller).await;
    let page = seller.get(format!("/products?category={category}&limit=1")).await.ok(200);
    let cursor = page["nextCursor"].as_str().unwrap();
    seller.get(format!("/products?category={category}&limit=2&cursor={cursor}")).await.ok(200);
    let flipped = if cursor.starts_with('A') { cursor.replacen('A', "B", 1) } else { format!("A{}", &cursor[1..]) };
    for path in [
        format!("/products?category={category}&sort=oldest&limit=1&cursor={cursor}"),
        format!("/products?category=other&limit=1&cursor={cursor}"),
        format!("/products?category={category}&limit=1&cursor={flipped}"),
        format!("/products?category={category}&limit=1&cursor={}", &cursor[..cursor.len() - 2]),
        format!("/products?category={category}&limit=1&cursor=x"),
        format!("/orders?limit=1&cursor={cursor}"),
    ] {
        seller.get(path).await.problem(400, "invalid_cursor");
    }
}

#[tokio::test]
async fn orders_are_listed_newest_first_per_user() {
    let shop = Shop::shared();
    let admin = shop.client("admin", ALL_SCOPES);
    let (alice, bob) = (unique("alice"), unique("bob"));
    let (alice_calls, bob_calls) = (shop.client(&alice, CUSTOMER), shop.client(&bob, CUSTOMER));
    let product = create_product(&admin, 100).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, id_of(&place_confirmed_order(&alice_calls, &[(&product, 1)]).await));
    }
    place_confirmed_order(&bob_calls, &[(&product, 1)]).await;
    set_status(&alice_calls, &ids[1], "CANCELLED").await.ok(200);

    let listed = |items: Vec<Value>| items.iter().map(id_of).collect::<Vec<_>>();
    assert_eq!(listed(all_items(&alice_calls, "/orders?limit=2").await), ids);
    assert_eq!(listed(all_items(&alice_calls, &format!("/orders?userId={alice}")).await), ids);
    assert_eq!(listed(all_items(&alice_calls, "/orders?status=CANCELLED").await), ids[1..2]);
    assert_eq!(listed(all_items(&admin, &format!("/orders?userId={alice}&status=CONFIRMED&limit=1")).await).len(), 4);
    assert_eq!(all_items(&bob_calls, "/orders").await.len(), 1);
    bob_calls.get(format!("/orders?userId={alice}")).await.problem(403, "insufficient_scope");

    let cursor = alice_calls.get("/orders?limit=1").await.ok(200)["nextCursor"].as_str().unwrap().to_owned();
    bob_calls.get(format!("/orders?limit=1&cursor={cursor}")).await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn default_page_size_is_twenty() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let category = unique("many");
    for _ in 0..21 {
        seller.post("/products", &with_changes(product_body(1), &json!({ "category": category }))).await.ok(201);
    }
    let length = async |limit: &str| {
        let page = seller.get(format!("/products?category={category}{limit}")).await.ok(200);
        page["items"].as_array().unwrap().len()
    };
    assert_eq!((length("").await, length("&limit=1").await, length("&limit=100").await), (20, 1, 21));
}

#[tokio::test]
async fn deleted_orders_are_not_listed() {
    let shop = Shop::shared();
    let buyer = shop.client(&unique("buyer"), CUSTOMER);
    let missing = uuid::Uuid::new_v4().to_string();
    let problem = buyer.post("/orders", &order_body(&[(&missing, 1)])).await.problem(422, "unknown_product");
    assert_eq!(all_items(&buyer, "/orders").await.len(), 1);
    buyer.delete(format!("/orders/{}", problem["orderId"].as_str().unwrap())).await.empty(204);
    assert_eq!(all_items(&buyer, "/orders").await, Vec::<Value>::new());
}

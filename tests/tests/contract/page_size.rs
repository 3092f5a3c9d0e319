//! Size of a page: a list ends early instead of exceeding the maximum message size.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use palisade_proto::{
    orders::v1::{FindAllRequest, orders_service_client::OrdersServiceClient},
    page::MAX_PAGE_BYTES,
};
use palisade_tests::{
    Client, Shop,
    shop::ALL_SCOPES,
    shop_helpers::{all_items, id_of, place_confirmed_order, product_body, with_changes},
    unique,
};
use prost::Message;
use serde_json::{Value, json};
use tonic::Request;

/// Orders of this many lines with the longest names.
const LINES: usize = 100;
/// Together larger than the 4 MiB that a gRPC client accepts.
const ORDERS: usize = 60;

/// Creates products with the longest names: 200 characters of 4 bytes.
async fn create_products(seller: &Client) -> Vec<String> {
    let create = |n: usize| async move {
        let name = format!("{n:03}{}", "🦀".repeat(197));
        id_of(&seller.post("/products", &with_changes(product_body(1_000), &json!({ "name": name }))).await.ok(201))
    };
    stream::iter(0..LINES).map(create).buffered(4).collect().await
}

#[tokio::test]
async fn long_orders_are_listed_completely() {
    let shop = Shop::shared();
    let seller = shop.client("seller", ALL_SCOPES);
    let user = unique("wholesaler");
    let buyer = shop.client(&user, ALL_SCOPES);
    let products = create_products(&seller).await;
    let lines: Vec<(&str, i64)> = products.iter().map(|product| (product.as_str(), 1)).collect();
    let place = |_| async { id_of(&place_confirmed_order(&buyer, &lines).await) };
    let placed: HashSet<String> = stream::iter(0..ORDERS).map(place).buffer_unordered(4).collect().await;

    let page = buyer.get("/orders?limit=100").await.ok(200);
    let count = page["items"].as_array().unwrap().len();
    assert!((1..ORDERS).contains(&count) && page["nextCursor"].is_string(), "{count} orders on the first page");
    let listed: Vec<Value> = all_items(&buyer, "/orders?limit=100").await;
    let ids: HashSet<String> = listed.iter().map(id_of).collect();
    assert_eq!((listed.len(), &ids), (ORDERS, &placed), "each order once");
    assert!(listed.iter().all(|order| order["items"].as_array().unwrap().len() == LINES));

    let channel = shop.grpc_channel("orders");
    let mut request = Request::new(FindAllRequest { limit: 100, ..FindAllRequest::default() });
    let token = shop.service_token("orders", &user, ALL_SCOPES);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let page = OrdersServiceClient::new(channel).find_all(request).await.unwrap().into_inner();
    assert!(page.encoded_len() <= MAX_PAGE_BYTES + 1024, "{} bytes", page.encoded_len());
}

#[tokio::test]
async fn page_of_long_products_has_the_asked_size() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let category = unique("long");
    let change = json!({ "name": "🦀".repeat(200), "description": "🦀".repeat(4_000), "category": category });
    let body = with_changes(product_body(1), &change);
    let create = |_| async { seller.post("/products", &body).await.ok(201) };
    stream::iter(0..100).map(create).buffer_unordered(4).for_each(|_| async {}).await;
    let page = seller.get(format!("/products?category={category}&limit=100")).await.ok(200);
    assert_eq!((page["items"].as_array().unwrap().len(), &page["nextCursor"]), (100, &Value::Null));
}

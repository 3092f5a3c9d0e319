//! Consistency audit: responses that buyers received against the final state of the shop. No
//! acknowledged order may be lost, no unit lost or sold twice.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    client::Client,
    eventually,
    shop::{SERVICES, Shop},
    shop_helpers::{all_items, available_quantity, id_of, is_settled, wait_until_settled},
};

/// Responses received by a client: the order of each idempotency key, and the cancelled orders.
#[derive(Debug, Default)]
pub struct ClientRecord {
    /// Order IDs by idempotency key. A client without a response retries with the same key.
    pub orders: BTreeMap<String, String>,
    /// IDs of cancelled orders.
    pub cancelled: Vec<String>,
    /// Quantities by product of revised orders, by order ID.
    pub revised: BTreeMap<String, BTreeMap<String, i64>>,
}

/// Products that are ordered only by recorded clients.
#[derive(Debug)]
pub struct StockFixture {
    /// Client that created the products.
    pub seller: Client,
    /// Product IDs.
    pub products: Vec<String>,
    /// Initial number of units of each product.
    pub units: i64,
}

impl StockFixture {
    /// Creates `products` products with `units` units each.
    pub async fn create(seller: Client, products: usize, units: i64) -> Self {
        let mut fixture = Self { seller, products: Vec::new(), units };
        for _ in 0..products {
            fixture.products.push(crate::shop_helpers::create_product(&fixture.seller, units).await);
        }
        fixture
    }

    /// Asserts consistency and returns the number of orders.
    ///
    /// Every acknowledged order exists and is settled, and there are no others. Cancelled orders
    /// are cancelled. Sold and available units add up to the initial stock. The services' own
    /// invariants hold.
    pub async fn audit(&self, shop: &Shop, records: &[(Client, ClientRecord)]) -> usize {
        let mut sold = BTreeMap::<String, i64>::new();
        for (client, record) in records {
            let orders: BTreeMap<String, Value> =
                all_items(client, "/orders?limit=100").await.into_iter().map(|order| (id_of(&order), order)).collect();
            for id in record.orders.values() {
                assert!(orders.contains_key(id), "acknowledged order {id} is missing");
            }
            assert_eq!(orders.len(), record.orders.len(), "one order per idempotency key");
            for (id, listed) in &orders {
                let order = if is_settled(listed) { listed.clone() } else { wait_until_settled(client, id).await };
                if record.cancelled.contains(id) {
                    assert_eq!(order["status"], "CANCELLED", "acknowledged cancellation was lost");
                }
                if let Some(revised) = record.revised.get(id) {
                    assert_eq!(quantities(&order), *revised, "acknowledged revision was lost");
                }
                for (product, quantity) in quantities(&order).into_iter().filter(|_| order["status"] == "CONFIRMED") {
                    *sold.entry(product).or_default() += quantity;
                }
            }
        }
        for product in &self.products {
            let sold = sold.get(product).copied().unwrap_or_default();
            // Stock of cancelled orders is released asynchronously.
            eventually(async || (available_quantity(&self.seller, product).await + sold == self.units).then_some(())).await;
        }
        for service in SERVICES.iter().filter(|service| **service != "gateway") {
            shop.invariants(service).await;
        }
        records.iter().map(|(_, record)| record.orders.len()).sum()
    }
}

/// Returns the quantities of an order by product.
pub fn quantities(order: &Value) -> BTreeMap<String, i64> {
    let quantity = |item: &Value| {
        let product = item["productId"].as_str().expect("an item has a product").to_owned();
        (product, item["quantity"].as_i64().expect("a quantity is an integer"))
    };
    order["items"].as_array().expect("an order has items").iter().map(quantity).collect()
}

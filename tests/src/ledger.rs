//! What buyers were told, held against what there is: no acknowledged order is lost, no unit is lost or sold twice.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    client::Client,
    eventually,
    shop::{SERVICES, Shop},
    shop_helpers::{all, id_of, is_settled, available_quantity, settled},
};

/// What a buyer was told: the order of each key, and which orders it saw cancelled.
#[derive(Debug, Default)]
pub struct ClientRecord {
    /// Ids by keys. Whoever gets no answer asks again with the same key, until there is one.
    pub orders: BTreeMap<String, String>,
    /// Ids.
    pub cancelled: Vec<String>,
}

/// Goods that are sold to nobody but those whose orders are in the ledger.
#[derive(Debug)]
pub struct StockFixture {
    /// Whoever put them there.
    pub seller: Client,
    /// Their ids.
    pub products: Vec<String>,
    /// How many units of each there were.
    pub units: i64,
}

impl StockFixture {
    /// So many products with so many units each.
    pub async fn stock(seller: Client, products: usize, units: i64) -> Self {
        let mut shelf = Self { seller, products: Vec::new(), units };
        for _ in 0..products {
            shelf.products.push(crate::shop_helpers::create_product(&shelf.seller, units).await);
        }
        shelf
    }

    /// Panics unless every order that a buyer was told of is there and settled, and no other; cancelled ones are cancelled; what was sold and what
    /// is left is what there was; and the services find nothing broken themselves. Answers how many orders there are.
    pub async fn audit(&self, shop: &Shop, told: &[(Client, ClientRecord)]) -> usize {
        let mut sold = BTreeMap::<String, i64>::new();
        for (client, told) in told {
            let orders: BTreeMap<String, Value> =
                all(client, "/orders?limit=100").await.into_iter().map(|order| (id_of(&order), order)).collect();
            for id in told.orders.values() {
                assert!(orders.contains_key(id), "the acknowledged order {id} is gone");
            }
            assert_eq!(orders.len(), told.orders.len(), "one order for each key, whatever the number of calls");
            for (id, listed) in &orders {
                let order = if is_settled(listed) { listed.clone() } else { settled(client, id).await };
                if told.cancelled.contains(id) {
                    assert_eq!(order["status"], "CANCELLED", "an acknowledged cancellation stands");
                }
                for item in order["items"].as_array().expect("an order has items").iter().filter(|_| order["status"] == "CONFIRMED") {
                    let product = item["productId"].as_str().expect("an item has a product").to_owned();
                    *sold.entry(product).or_default() += item["quantity"].as_i64().expect("a quantity is an integer");
                }
            }
        }
        for product in &self.products {
            let sold = sold.get(product).copied().unwrap_or_default();
            // What cancelled orders held comes back by itself, a little later.
            eventually(async || (available_quantity(&self.seller, product).await + sold == self.units).then_some(())).await;
        }
        for service in SERVICES.iter().filter(|service| **service != "gateway") {
            shop.invariants(service).await;
        }
        told.iter().map(|(_, told)| told.orders.len()).sum()
    }
}

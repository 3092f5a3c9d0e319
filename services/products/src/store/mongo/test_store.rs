//! Fresh database for tests of the store's internals.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{MongoStore, documents::bson_id};
use crate::{
    product::{Input, ValidatedProduct},
    reservation::{Line, Lines},
    store::roles::{Maintenance, ProductStore},
};

pub(super) const NOW: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);
pub(super) const HOLD: Duration = Duration::from_mins(15);

pub(super) async fn new_store() -> MongoStore {
    let database = Uuid::now_v7().simple().to_string();
    let store = MongoStore::new(&palisade_tests::servers::shared_mongo().url(&database)).await.unwrap();
    store.migrate().await.unwrap();
    store
}

pub(super) fn input(quantity: i64) -> Input {
    Input { name: "Lamp".into(), description: String::new(), price_minor: 1999, quantity, category: "home".into(), is_active: true }
}

pub(super) fn lines(lines: &[(Uuid, i64)]) -> Lines {
    Lines::new(lines.iter().map(|&(product_id, quantity)| Line { product_id, quantity }).collect()).unwrap()
}

impl MongoStore {
    pub(super) async fn add(&self, quantity: i64) -> Uuid {
        let id = Uuid::now_v7();
        self.create(id, ValidatedProduct::new(input(quantity)).unwrap(), None, "alice".into(), NOW).await.unwrap();
        id
    }

    pub(super) async fn available(&self, id: Uuid) -> i64 {
        self.find(id).await.unwrap().unwrap().quantity
    }

    /// Changes a product without the store.
    pub(super) async fn tamper(&self, product: Uuid, change: Document) {
        self.collections.stock.update_one(doc! { "_id": bson_id(product) }, change).await.unwrap();
    }
}

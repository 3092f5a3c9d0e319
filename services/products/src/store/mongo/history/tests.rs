use mongodb::bson::doc;
use palisade_middleware::preconditions::VersionPreconditions;

use super::*;
use crate::{
    product::{Patch, ValidatedPatch},
    store::{
        ProductStore,
        mongo::{
            collections::Collections,
            products::projection,
            test_store::{NOW, new_store},
        },
    },
};

impl MongoStore {
    async fn rename(&self, product: Uuid, name: &str) {
        let patch = ValidatedPatch::new(Patch { name: Some(name.into()), ..Patch::default() }, &[]).unwrap();
        self.patch(product, patch, VersionPreconditions::default(), "bob".into(), NOW).await.unwrap();
    }

    /// Returns the old and the new name of each change.
    async fn names(&self, product: Uuid) -> Vec<(Option<String>, String)> {
        let history = self.history(product).await.unwrap().unwrap();
        history.into_iter().filter_map(|change| change.fields.name).map(|name| (name.from, name.to)).collect()
    }
}

#[tokio::test]
async fn history_begins_with_the_next_change() {
    let store = new_store().await;
    let product = store.add(1).await;
    store.tamper(product, doc! { "$unset": { "history": "" } }).await;
    assert_eq!(store.names(product).await, []);
    store.rename(product, "Lantern").await;
    // A replica of the previous release does not maintain the history.
    store.tamper(product, doc! { "$set": { "name": "Chair" }, "$inc": { "version": 1_i64 } }).await;
    store.rename(product, "Table").await;
    let name = |from: &str, to: &str| (Some(from.to_owned()), to.to_owned());
    assert_eq!(store.names(product).await, [name("Chair", "Table"), name("Lamp", "Lantern")]);
}

#[tokio::test]
async fn unreadable_change_is_left_out() {
    let store = new_store().await;
    let product = store.add(1).await;
    store.rename(product, "Lantern").await;
    store.rename(product, "Chair").await;
    store.tamper(product, doc! { "$set": { "history.1.version": "two" } }).await;
    let versions = async || store.history(product).await.unwrap().unwrap().iter().map(|change| change.version).collect::<Vec<_>>();
    assert_eq!(versions().await, [3, 1]);
    store.rename(product, "Table").await;
    assert_eq!(versions().await, [4, 3, 1]);
}

#[tokio::test]
async fn no_other_read_returns_the_history() {
    let store = new_store().await;
    let product = store.add(1).await;
    let products = store.collections.products.clone_with_type::<Document>();
    for fields in [projection(), Collections::stock_fields()] {
        let found = products.find_one(doc! { "_id": bson_id(product) }).projection(fields).await.unwrap().unwrap();
        assert!(found.contains_key("version") && !found.contains_key("history"), "{found}");
    }
}

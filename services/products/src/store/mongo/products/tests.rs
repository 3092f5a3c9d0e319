use mongodb::bson::doc;

use super::*;
use crate::{
    product::Position,
    store::mongo::{
        documents::KeyDocument,
        test_store::{NOW, input, new_store},
    },
};

#[tokio::test]
async fn every_filter_and_sort_uses_an_index() {
    let store = new_store().await;
    for n in 0..50 {
        store.add(n).await;
    }
    for sort in [Sort::Newest, Sort::Oldest, Sort::PriceAsc, Sort::PriceDesc, Sort::NameAsc, Sort::NameDesc] {
        let product = ValidatedProduct::new(input(1)).unwrap().into_product(Uuid::now_v7(), NOW);
        let position = Position { key: sort.key(&product), id: product.id };
        for category in [None, Some("home".to_owned())] {
            for is_active in [None, Some(true)] {
                for price in [None, Some(5)] {
                    for after in [None, Some(position.clone())] {
                        let filter =
                            Filter { category: category.clone(), is_active, text: None, min_price_minor: price, max_price_minor: price };
                        let query = Query::new(filter, sort, 20, after).unwrap();
                        let find = doc! { "find": "products", "filter": super::filter(&query), "sort": order(sort), "limit": 21_i64 };
                        let plan = store.database.run_command(doc! { "explain": find, "verbosity": "queryPlanner" }).await.unwrap();
                        let plan = plan.get_document("queryPlanner").unwrap().get("winningPlan").unwrap().to_string();
                        assert!(plan.contains("IXSCAN") && !plan.contains("COLLSCAN"), "{query:?}: {plan}");
                    }
                }
            }
        }
    }
}

fn key() -> IdempotencyKey {
    IdempotencyKey { subject: "alice".into(), key: "key".into(), fingerprint: [7; 32] }
}

#[tokio::test]
async fn repeated_create_finishes_a_crashed_create() {
    let store = new_store().await;
    let draft = ValidatedProduct::new(input(3)).unwrap();
    let CreateOutcome::Created { product, .. } =
        store.create(Uuid::now_v7(), draft.clone(), Some(key()), "alice".into(), NOW).await.unwrap()
    else {
        panic!("the key was not used before")
    };
    store.collections.products.delete_many(doc! {}).await.unwrap();
    store.collections.keys.update_many(doc! {}, doc! { "$set": { "done": false } }).await.unwrap();

    let repeated = store.create(Uuid::now_v7(), draft, Some(key()), "alice".into(), NOW).await.unwrap();
    assert_eq!(repeated, CreateOutcome::Created { product: product.clone(), replayed: true });
    assert_eq!(store.find(product.id).await.unwrap(), Some(product));
}

#[tokio::test]
async fn removed_product_is_not_recreated_by_unfinished_key() {
    let store = new_store().await;
    let draft = ValidatedProduct::new(input(3)).unwrap();
    let id = Uuid::now_v7();
    store.create(id, draft.clone(), Some(key()), "alice".into(), NOW).await.unwrap();
    store.collections.keys.update_many(doc! {}, doc! { "$set": { "done": false } }).await.unwrap();
    assert_eq!(store.remove(id, VersionPreconditions::default(), OffsetDateTime::UNIX_EPOCH).await.unwrap(), RemoveOutcome::Removed);

    store.create(Uuid::now_v7(), draft, Some(key()), "alice".into(), NOW).await.unwrap();
    assert_eq!(store.find(id).await.unwrap(), None);
    let keys: Vec<KeyDocument> = store.collections.keys.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    assert!(keys.iter().all(|key| key.done));
}

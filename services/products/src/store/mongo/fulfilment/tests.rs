use super::*;
use crate::store::{
    Maintenance, MongoStore, ReservationStore,
    mongo::{
        documents::{Stock, bson_id},
        test_store::{HOLD, NOW, lines, new_store},
    },
};

/// Returns a confirmed reservation of 4 of 10 units of each of two products.
async fn sell(store: &MongoStore) -> (Uuid, [Uuid; 2]) {
    let products = [store.add(10).await, store.add(10).await];
    let id = Uuid::now_v7();
    store.reserve(id, lines(&products.map(|product| (product, 4))), NOW, HOLD).await.unwrap();
    store.confirm(id, NOW).await.unwrap();
    (id, products)
}

async fn reservation(store: &MongoStore, id: Uuid) -> ReservationDocument {
    find(&store.collections, id).await.unwrap().unwrap()
}

async fn stock(store: &MongoStore, product: Uuid) -> Stock {
    stock_marks::find(&store.collections, bson_id(product)).await.unwrap().unwrap()
}

/// Runs the first `steps` steps of a fulfilment of two lines, of 6.
async fn run_until_crash(store: &MongoStore, id: Uuid, steps: usize) {
    let db = &store.collections;
    let document = reservation(store, id).await;
    for step in 0..steps {
        let current = reservation(store, id).await;
        match step {
            0 => change(db, &current, doc! { "fulfilment": Fulfilment::Applying }, NOW).await.unwrap(),
            1 | 2 => apply(db, document.id, &document.lines[step - 1], NOW).await.unwrap(),
            3 => change(db, &current, doc! { "state": Phase::Released, "fulfilment": Fulfilment::Clearing }, NOW).await.unwrap(),
            4 | 5 => clear(db, document.id, &document.lines[step - 4]).await.unwrap(),
            _ => unreachable!("a fulfilment has 6 steps before the last"),
        }
    }
}

#[tokio::test]
async fn interrupted_fulfilment_is_finished_by_any_call() {
    let store = new_store().await;
    for steps in 0..=6 {
        for by_release in [false, true] {
            if by_release && steps == 0 {
                continue;
            }
            let (id, products) = sell(&store).await;
            run_until_crash(&store, id, steps).await;
            assert_eq!(store.audit(NOW).await.unwrap().violations, [], "{steps} steps");
            if by_release {
                store.release(id, NOW).await.unwrap();
            }
            assert!(matches!(store.fulfil(id, NOW).await.unwrap(), FulfilOutcome::Fulfilled(_)), "{steps} steps");
            for product in products {
                let stock = stock(&store, product).await;
                assert_eq!((stock.quantity, stock.taken, stock.supply, stock.fulfilling), (6, 0, 6, vec![]), "{steps} steps");
            }
            assert_eq!(store.audit(NOW).await.unwrap().violations, [], "{steps} steps");
        }
    }
}

/// An executor that was suspended between its check and its update, while others finished.
#[tokio::test]
async fn late_step_is_stopped_after_the_fulfilment() {
    let store = new_store().await;
    let (id, [product, _]) = sell(&store).await;
    run_until_crash(&store, id, 1).await;
    let before = stock(&store, product).await;
    let document = reservation(&store, id).await;
    store.fulfil(id, NOW).await.unwrap();
    let late = doc! { "_id": before.id, "epoch": before.epoch, "fulfilling": { "$ne": document.id } };
    let take_off = doc! { "$inc": { "taken": -4_i64, "supply": -4_i64 }, "$push": { "fulfilling": document.id } };
    assert_eq!(store.collections.stock.update_one(late, take_off).await.unwrap().matched_count, 0);
    apply(&store.collections, document.id, &document.lines[0], NOW).await.unwrap();
    assert_eq!((stock(&store, product).await.taken, store.audit(NOW).await.unwrap().violations), (0, vec![]));
}

/// The states are those that the previous release knows.
#[tokio::test]
async fn stored_states_are_known_to_the_previous_release() {
    let store = new_store().await;
    let (id, _) = sell(&store).await;
    for steps in [1, 3, 2] {
        let (id, _) = sell(&store).await;
        run_until_crash(&store, id, steps).await;
        assert_eq!(reservation(&store, id).await.state, Phase::Confirmed, "{steps} steps: it owns units until all are taken off");
    }
    store.fulfil(id, NOW).await.unwrap();
    let document = reservation(&store, id).await;
    assert_eq!((document.state, document.fulfilment), (Phase::Released, Some(Fulfilment::Done)));
}

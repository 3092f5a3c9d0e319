use palisade_middleware::preconditions::VersionPreconditions;

use super::{super::sweep::ABANDONED_AFTER, *};
use crate::store::{
    Maintenance, ProductStore, RemoveOutcome,
    mongo::test_store::{HOLD, NOW, lines, new_store},
};

/// Point at which the work on a reservation of two lines stopped.
#[derive(Debug, Clone, Copy)]
struct CrashPoint {
    /// Number of lines taken.
    taken: usize,
    /// Undo started afterwards, if any.
    undo: Option<Undo>,
    /// Number of lines given back afterwards.
    given_back: usize,
}

/// Returns every point at which a crash can stop a reserve, or the undo of a reservation that was
/// held or not.
fn crash_points() -> Vec<CrashPoint> {
    let reserving = (0..=2).map(|taken| CrashPoint { taken, undo: None, given_back: 0 });
    let undoing = [
        (Phase::Refused, false, 0..=1),
        (Phase::Released, false, 0..=2),
        (Phase::Expired, false, 0..=2),
        (Phase::Released, true, 2..=2),
        (Phase::Expired, true, 2..=2),
    ];
    let undoing = undoing.into_iter().flat_map(|(to, all_lines_taken, taken)| {
        taken.flat_map(move |taken| {
            (0..=2).map(move |given_back| CrashPoint { taken, undo: Some(Undo { to, all_lines_taken }), given_back })
        })
    });
    reserving.chain(undoing).collect()
}

/// Runs the steps of an executor up to `stop`.
async fn run_until_crash(store: &MongoStore, products: [Uuid; 2], stop: CrashPoint) -> Uuid {
    let db = &store.collections;
    let id = Uuid::now_v7();
    let requested = lines(&[(products[0], 2), (products[1], 3)]);
    let stock = load_stock(db, products.map(bson_id).into_iter()).await.unwrap();
    let stock_by_id = stock.iter().map(|product| (domain_id(product.id), product.product_stock())).collect();
    let (state, held) = requested.evaluate(&stock_by_id);
    let document = ReservationDocument::new(&Reservation { id, state, lines: held, expires_at: NOW + HOLD }, NOW);
    assert!(insert(db, &document).await.unwrap());
    for line in &document.lines[..stop.taken] {
        let outcome = stock_marks::take(db, document.id, line, epochs(&stock).get(&line.product_id).copied(), NOW).await.unwrap();
        assert_eq!(outcome, TakeOutcome::Taken);
    }
    let Some(to) = stop.undo else { return id };
    let mut held = document.clone();
    if to.all_lines_taken {
        compare_and_set(db, &document, doc! { "state": Phase::Held }).await.unwrap();
        held.state = Phase::Held;
    }
    let refusal = RefusalDocument::new(crate::reservation::Refusal::InsufficientStock, document.lines[1].product_id);
    undo(db, &held, to, (to.to == Phase::Refused).then_some(refusal), NOW).await.unwrap();
    for line in &document.lines[..stop.given_back] {
        stock_marks::give_back(db, document.id, line, to.all_lines_taken, NOW).await.unwrap();
    }
    id
}

#[derive(Debug, Clone, Copy)]
enum Recovery {
    Reserve,
    Confirm,
    Release,
    Sweep,
}

async fn recover(store: &MongoStore, id: Uuid, products: [Uuid; 2], how: Recovery) {
    match how {
        Recovery::Reserve => drop(store.reserve(id, lines(&[(products[0], 2), (products[1], 3)]), NOW, HOLD).await.unwrap()),
        Recovery::Confirm => drop(store.confirm(id, NOW).await.unwrap()),
        Recovery::Release => drop(store.release(id, NOW).await.unwrap()),
        Recovery::Sweep => assert_eq!(store.expire_due(NOW + HOLD, 10).await.unwrap(), 1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_at_any_step_is_finished_or_undone() {
    for stop in crash_points() {
        for how in [Recovery::Reserve, Recovery::Confirm, Recovery::Release, Recovery::Sweep] {
            let store = new_store().await;
            let products = [store.add(10).await, store.add(10).await];
            let id = run_until_crash(&store, products, stop).await;
            assert_eq!(store.audit(NOW).await.unwrap().violations, [], "{stop:?}: an unfinished reservation is balanced");

            recover(&store, id, products, how).await;
            let expected = match (stop.undo, how) {
                (Some(undo), _) => undo.to,
                (None, Recovery::Reserve) => Phase::Held,
                (None, Recovery::Confirm) => Phase::Confirmed,
                (None, Recovery::Release) => Phase::Released,
                (None, Recovery::Sweep) => Phase::Expired,
            };
            let found = find(&store.collections, id).await.unwrap().unwrap();
            assert_eq!(found.state, expected, "{stop:?} {how:?}");
            let owned = matches!(expected, Phase::Held | Phase::Confirmed);
            let available = [store.available(products[0]).await, store.available(products[1]).await];
            assert_eq!(available, if owned { [8, 7] } else { [10, 10] }, "{stop:?} {how:?}");
            assert_eq!(store.audit(NOW).await.unwrap().violations, [], "{stop:?} {how:?}");
        }
    }
}

#[tokio::test]
async fn late_executor_changes_nothing() {
    let store = new_store().await;
    let db = &store.collections;
    let products = [store.add(10).await, store.add(10).await];
    let all_taken = CrashPoint { taken: 2, undo: None, given_back: 0 };

    let id = run_until_crash(&store, products, all_taken).await;
    let reserving = find(db, id).await.unwrap().unwrap();
    store.release(id, NOW).await.unwrap();
    compare_and_set(db, &reserving, doc! { "state": Phase::Held }).await.unwrap();
    assert_eq!(find(db, id).await.unwrap().unwrap().state, Phase::Released, "the released reservation is not held again");

    let id = run_until_crash(&store, products, all_taken).await;
    finish(db, id, NOW).await.unwrap();
    let held = find(db, id).await.unwrap().unwrap();
    store.confirm(id, NOW).await.unwrap();
    undo(db, &held, Undo { to: Phase::Expired, all_lines_taken: true }, None, NOW).await.unwrap();
    assert_eq!(find(db, id).await.unwrap().unwrap().state, Phase::Confirmed, "the confirmed reservation is unchanged");
}

#[tokio::test]
async fn undoing_is_swept_only_after_it_is_abandoned() {
    let store = new_store().await;
    let products = [store.add(10).await, store.add(10).await];
    run_until_crash(
        &store,
        products,
        CrashPoint { taken: 2, undo: Some(Undo { to: Phase::Released, all_lines_taken: true }), given_back: 1 },
    )
    .await;
    assert_eq!(store.expire_due(NOW + ABANDONED_AFTER - Duration::from_millis(1), 10).await.unwrap(), 0);
    assert_eq!(store.expire_due(NOW + ABANDONED_AFTER, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn product_removed_during_reserve_rejects_it() {
    let store = new_store().await;
    let products = [store.add(10).await, store.add(10).await];
    let id = run_until_crash(&store, products, CrashPoint { taken: 1, undo: None, given_back: 0 }).await;
    assert_eq!(store.remove(products[0], VersionPreconditions::default(), OffsetDateTime::UNIX_EPOCH).await.unwrap(), RemoveOutcome::InUse);
    assert_eq!(
        store.remove(products[1], VersionPreconditions::default(), OffsetDateTime::UNIX_EPOCH).await.unwrap(),
        RemoveOutcome::Removed
    );
    let reserved = store.reserve(id, lines(&[(products[0], 2), (products[1], 3)]), NOW, HOLD).await.unwrap();
    let expected = ReserveOutcome::Refused { reason: crate::reservation::Refusal::UnknownProduct, product_id: products[1] };
    assert_eq!(reserved, expected);
    assert_eq!(store.available(products[0]).await, 10);
    assert_eq!(store.audit(NOW).await.unwrap().violations, []);
}

#[tokio::test]
async fn audit_finds_every_imbalance() {
    let store = new_store().await;
    let products = [store.add(10).await, store.add(10).await];
    store.reserve(Uuid::now_v7(), lines(&[(products[0], 2)]), NOW, HOLD).await.unwrap();
    for change in
        [doc! { "quantity": 1_i64 }, doc! { "taken": 1_i64 }, doc! { "supply": -1_i64 }, doc! { "quantity": 1_i64, "taken": -1_i64 }]
    {
        store.tamper(products[0], doc! { "$inc": change.clone() }).await;
        let violations = store.audit(NOW).await.unwrap().violations;
        assert_eq!(violations.iter().map(|found| found.product_id).collect::<Vec<_>>(), [products[0]], "{change}");
        let back: Document = change.into_iter().map(|(field, by)| (field, Bson::Int64(-by.as_i64().unwrap()))).collect();
        store.tamper(products[0], doc! { "$inc": back }).await;
    }
    assert_eq!(store.audit(NOW).await.unwrap().violations, []);
    store.collections.products.delete_one(doc! { "_id": bson_id(products[0]) }).await.unwrap();
    assert_eq!(store.audit(NOW).await.unwrap().violations.len(), 1);
}

//! Filters of order lists, in every combination and over several pages.

use std::time::Duration;

use palisade_orders::{
    order::{FailureReason, NewOrder, Order, OrderId, Status},
    store::{Create, CreateResult, List},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::{Database, NOW, any, create, failed, owner};

crate::on_both![filters_combine, pages_of_a_product_are_complete];

const PRODUCTS: [Uuid; 3] = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];

/// Creates an order with a line of each of these products.
async fn order(db: &Database, user: &'static str, products: &[Uuid], now: OffsetDateTime) -> palisade_orders::store::Claimed {
    let ids: Vec<String> = products.iter().map(Uuid::to_string).collect();
    let items: Vec<(&str, i64)> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    let new = Create { order: NewOrder::new(user, &items).unwrap(), ..create(user, now) };
    match db.store.create(new, now).await.unwrap() {
        CreateResult::Created(claimed) => claimed,
        other => panic!("{other:?}"),
    }
}

/// Returns the orders of all pages.
async fn listed(db: &Database, list: &List) -> Vec<OrderId> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = db.store.list(List { after, limit: 2, ..list.clone() }).await.unwrap();
        ids.extend(page.orders.iter().map(|order| order.id));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
}

fn matches(order: &Order, list: &List) -> bool {
    list.user_id.as_ref().is_none_or(|user_id| order.user_id == *user_id)
        && list.status.is_none_or(|status| order.status == status)
        && list.product_id.is_none_or(|product_id| order.lines.iter().any(|line| line.product_id == product_id))
        && list.created_from.is_none_or(|from| order.created_at >= from)
        && list.created_to.is_none_or(|to| order.created_at < to)
        && (list.with_removed || order.removed.is_none())
}

async fn filters_combine(db: Database) {
    let mut orders = Vec::new();
    for number in 0..24_u32 {
        let user = if number % 3 == 0 { "bob" } else { "alice" };
        let products = match number % 4 {
            0 => &PRODUCTS[..1],
            1 => &PRODUCTS[1..2],
            _ => &PRODUCTS[..2],
        };
        let claimed = order(&db, user, products, NOW + Duration::from_millis(10) * number).await;
        let id = claimed.saga.order.id;
        if number % 5 < 2 {
            db.apply(&claimed, failed(FailureReason::UnknownProduct, false), NOW).await;
        }
        if number % 5 == 0 {
            db.store.remove(id, owner(), any(), NOW).await.unwrap();
        }
        orders.insert(0, db.find(id).await);
    }
    let at = |number: u32| NOW + Duration::from_millis(10) * number;
    let mut found = 0;
    for user_id in [None, Some("alice"), Some("bob"), Some("carol")] {
        for status in [None, Some(Status::Pending), Some(Status::Failed), Some(Status::Completed)] {
            for product_id in [None, Some(PRODUCTS[0]), Some(PRODUCTS[1]), Some(PRODUCTS[2])] {
                for (created_from, created_to) in [(None, None), (Some(at(5)), None), (None, Some(at(15))), (Some(at(5)), Some(at(15)))] {
                    for with_removed in [false, true] {
                        let user_id = user_id.map(Into::into);
                        let list = List { user_id, status, product_id, created_from, created_to, with_removed, ..List::default() };
                        let expected: Vec<_> = orders.iter().filter(|order| matches(order, &list)).map(|order| order.id).collect();
                        assert_eq!(listed(&db, &list).await, expected, "{list:?}");
                        found += expected.len();
                    }
                }
            }
        }
    }
    assert!(found > 1_000, "{found}");
    let whole = db.store.list(List { product_id: Some(PRODUCTS[0]), limit: 100, ..List::default() }).await.unwrap();
    assert_eq!(whole.orders[0], db.find(whole.orders[0].id).await, "including its other lines");
}

async fn pages_of_a_product_are_complete(db: Database) {
    let mut expected = Vec::new();
    for number in 0..13 {
        // Several orders per millisecond.
        let claimed =
            order(&db, "alice", &PRODUCTS[..=number % 3], NOW + Duration::from_micros(300) * u32::try_from(number).unwrap()).await;
        expected.push(claimed.saga.order.id);
    }
    let (product, all) = (Some(PRODUCTS[0]), List::default());
    for list in [List { product_id: product, ..all.clone() }, List { product_id: product, user_id: Some("alice".into()), ..all }] {
        let mut found = listed(&db, &list).await;
        assert_eq!(found.len(), expected.len());
        found.sort_unstable();
        let mut expected = expected.clone();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}

//! Invariants of the whole system after the faults: both services agree, and nothing is lost or
//! left over.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    orders::OrderState,
    products::{ProductsData, ReservationState},
};
use crate::{
    client::{Journal, user},
    story::Story,
};

/// Whether all work is done: no saga, release, revision, fulfilment or publication is left.
pub fn is_quiet(orders: &BTreeMap<Uuid, OrderState>) -> bool {
    orders.values().all(|order| !order.is_unfinished && order.events.values().all(|published| *published))
}

/// Checks that everything came to an end.
pub fn check_ended(orders: &BTreeMap<Uuid, OrderState>, story: &Story) {
    for (id, order) in orders {
        if order.is_unfinished {
            story.violate("every accepted order comes to an end", format!("{id}: {order:?}"));
        }
        if order.events.values().any(|published| !published) {
            story.violate("every event is published", format!("{id}: {order:?}"));
        }
    }
}

/// Checks orders against reservations.
pub fn check_agreement(orders: &BTreeMap<Uuid, OrderState>, products: &ProductsData, story: &Story) {
    for (id, order) in orders {
        let reservation = products.reservations.get(id);
        let agrees = match order.status.as_str() {
            "CONFIRMED" => reservation.is_some_and(|it| it.state == "CONFIRMED" && it.lines == order.lines),
            "COMPLETED" => reservation.is_some_and(|it| it.is_fulfilled && it.lines == order.lines),
            "FAILED" | "CANCELLED" => reservation.is_none_or(|it| !it.owns_or_fulfilled()),
            _ => order.is_unfinished,
        };
        if !agrees {
            story.violate("orders and reservations agree", format!("{id}: {order:?} and {reservation:?}"));
        }
    }
    for (id, reservation) in products.reservations.iter().filter(|(_, reservation): &(_, &ReservationState)| reservation.is_open()) {
        if !orders.contains_key(id) {
            story.violate("every reservation has an order", format!("{id}: {reservation:?}"));
        }
    }
}

/// Checks the responses that the clients received against the data.
pub fn check_promises(orders: &BTreeMap<Uuid, OrderState>, journal: &Journal, story: &Story) {
    for (id, known) in journal.orders() {
        let Some(order) = orders.get(&id) else {
            story.violate("no acknowledged order is lost", format!("{id}"));
            continue;
        };
        for status in &known.acknowledged {
            if !order.history.iter().any(|(_, in_history)| in_history == status) {
                story.violate("an acknowledged change is kept", format!("{id}: {status}, but {order:?}"));
            }
        }
    }
    let published = journal.published();
    for (id, order) in orders {
        let received = published.get(id).map(Vec::as_slice).unwrap_or_default();
        if !order.events.keys().all(|version| received.contains(version)) {
            story.violate("every event is published", format!("{id}: received {received:?} of {order:?}"));
        }
    }
    // Every order was asked for, and by one key.
    let mut by_order = BTreeMap::<Uuid, Vec<(usize, String)>>::new();
    for (key, id) in journal.keys() {
        by_order.entry(id).or_default().push(key);
    }
    for (id, order) in orders {
        match by_order.get(id).map(Vec::as_slice) {
            Some([(client, _)]) if order.user == user(*client) => {}
            keys => story.violate("one order per key", format!("{id} of {}: {keys:?}", order.user)),
        }
    }
}

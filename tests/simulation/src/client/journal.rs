//! What the clients know: their keys and orders, and the responses that they received.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::Value;
use uuid::Uuid;

use super::{http::Reply, user};
use crate::story::Story;

/// Knowledge of all clients. Clones share it.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    creations: Vec<Creation>,
    by_key: BTreeMap<(usize, String), (Uuid, Option<Value>)>,
    published: BTreeMap<Uuid, Vec<i64>>,
    orders: BTreeMap<Uuid, KnownOrder>,
    finished: usize,
}

/// An order that a client knows.
#[derive(Debug, Clone)]
pub struct KnownOrder {
    /// Its owner.
    pub client: usize,
    /// Highest version seen.
    pub version: i64,
    /// Changes of status that were acknowledged.
    pub acknowledged: Vec<String>,
}

/// A create request, which may be sent several times.
#[derive(Debug, Clone)]
pub struct Creation {
    /// Its client.
    pub client: usize,
    /// Its idempotency key.
    pub key: String,
    /// Its body.
    pub body: Value,
}

impl Journal {
    pub(super) fn begin_creation(&self, client: usize, key: &str, body: Value) -> Creation {
        let creation = Creation { client, key: key.to_owned(), body };
        self.0.lock().creations.push(creation.clone());
        creation
    }

    /// Records the order that a create request made, and checks that each key has one order and
    /// one stored response.
    pub(super) fn created(&self, story: &Story, creation: &Creation, id: Uuid, reply: &Reply) {
        let mut known = self.0.lock();
        let order = KnownOrder { client: creation.client, version: 0, acknowledged: Vec::new() };
        known.orders.entry(id).or_insert(order);
        let (known_id, stored) = known.by_key.entry((creation.client, creation.key.clone())).or_insert((id, None));
        if *known_id != id {
            let evidence = format!("{} made {known_id} and {id}", creation.key);
            story.violate("one order per key", evidence);
        }
        if reply.is_replayed {
            let body = replayed(&reply.body);
            match stored {
                Some(stored) if *stored != body => {
                    story.violate("a replay repeats the stored response", format!("{}: {stored} and {body}", creation.key));
                }
                Some(_) => {}
                None => *stored = Some(body),
            }
        }
        if let Some(other) = known.orders.get(&id).filter(|order| order.client != creation.client) {
            story.violate("one order per key", format!("{} got {id} of {}", creation.key, user(other.client)));
        }
    }

    /// Records a response that shows an order, and checks that it is the client's own and not older
    /// than an earlier one.
    pub(super) fn observe(&self, story: &Story, client: usize, id: Uuid, reply: &Reply) {
        let owner = reply.body["userId"].as_str().unwrap_or_default();
        if owner != user(client) {
            story.violate("no access to the orders of others", format!("{} reads {id} of {owner}", user(client)));
        }
        if reply.is_replayed {
            return; // a stored response is of its time
        }
        let mut known = self.0.lock();
        let Some((order, version)) = known.orders.get_mut(&id).zip(reply.version) else { return };
        // Concurrent requests of one client have no order between each other, and a request may
        // have been overtaken: only a version that was seen before its beginning binds it.
        order.version = order.version.max(version);
    }

    /// Version that a read which begins now must reach.
    pub(super) fn version(&self, id: Uuid) -> i64 {
        self.0.lock().orders.get(&id).map_or(0, |order| order.version)
    }

    pub(super) fn listed(&self, client: usize, id: Uuid) {
        let order = KnownOrder { client, version: 0, acknowledged: Vec::new() };
        self.0.lock().orders.entry(id).or_insert(order);
    }

    pub(super) fn acknowledged(&self, id: Uuid, status: &str) {
        if let Some(order) = self.0.lock().orders.get_mut(&id) {
            order.acknowledged.push(status.to_owned());
        }
    }

    pub(super) fn finished(&self) {
        self.0.lock().finished += 1;
    }

    /// Number of clients that have finished.
    pub fn finished_clients(&self) -> usize {
        self.0.lock().finished
    }

    /// Orders that this client knows.
    pub fn orders_of(&self, client: usize) -> Vec<Uuid> {
        self.0.lock().orders.iter().filter(|(_, order)| order.client == client).map(|(id, _)| *id).collect()
    }

    pub(super) fn orders_of_others(&self, client: usize) -> Vec<Uuid> {
        self.0.lock().orders.iter().filter(|(_, order)| order.client != client).map(|(id, _)| *id).collect()
    }

    pub(super) fn open_creations(&self, client: usize) -> Vec<Creation> {
        let known = self.0.lock();
        let is_open =
            |creation: &&Creation| creation.client == client && !known.by_key.contains_key(&(creation.client, creation.key.clone()));
        known.creations.iter().filter(is_open).cloned().collect()
    }

    /// All known orders.
    pub fn orders(&self) -> BTreeMap<Uuid, KnownOrder> {
        self.0.lock().orders.clone()
    }

    /// Orders by client and idempotency key.
    pub fn keys(&self) -> BTreeMap<(usize, String), Uuid> {
        self.0.lock().by_key.iter().map(|(key, (id, _))| (key.clone(), *id)).collect()
    }

    /// Order of a create request.
    pub(super) fn order_of(&self, creation: &Creation) -> Option<Uuid> {
        self.0.lock().by_key.get(&(creation.client, creation.key.clone())).map(|(id, _)| *id)
    }

    /// Create requests of this client whose order is known.
    pub(super) fn definite_creations(&self, client: usize) -> Vec<Creation> {
        let known = self.0.lock();
        let is_definite =
            |creation: &&Creation| creation.client == client && known.by_key.contains_key(&(creation.client, creation.key.clone()));
        known.creations.iter().filter(is_definite).cloned().collect()
    }

    /// Records an event that a consumer received.
    pub fn received(&self, story: &Story, order: Uuid, version: i64) {
        let mut known = self.0.lock();
        let versions = known.published.entry(order).or_default();
        if versions.contains(&version) {
            return; // delivered again
        }
        if versions.last().is_some_and(|last| *last > version) {
            story.violate("events of an order are in order", format!("{order}: {version} after {versions:?}"));
        }
        versions.push(version);
    }

    /// Versions of each order that a consumer received.
    pub fn published(&self) -> BTreeMap<Uuid, Vec<i64>> {
        self.0.lock().published.clone()
    }
}

/// A response without the fields that name the request.
fn replayed(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        for field in ["requestId", "traceId"] {
            fields.remove(field);
        }
    }
    body
}

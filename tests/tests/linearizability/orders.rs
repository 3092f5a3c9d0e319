//! Clients of the gateway: several create one order with one idempotency key, read it and cancel
//! it, and record every attempt.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join3;
use palisade_tests::{
    Client, Response, eventually,
    linearizability::History,
    random::Random,
    shop_helpers::{id_of, order_request, set_status},
    unique,
};

use crate::order::{Call, Order, Reply, Status};

/// Reads and cancellations of a client.
const CALLS: u64 = 12;

/// Order under test.
pub(crate) struct Subject {
    key: String,
    product: String,
    quantity: i64,
    history: History<Order>,
    id: OnceLock<String>,
}

/// Creates orders one after the other until it is stopped, and returns their histories.
pub(crate) async fn run(buyer: Client, products: &[String], stopped: &AtomicBool, mut random: Random) -> Vec<History<Order>> {
    let mut histories = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        let (product, quantity) = (random.choose(products).clone(), i64::try_from(random.choose_index(1..4)).unwrap());
        let subject = Subject { key: unique("key"), product, quantity, history: History::default(), id: OnceLock::new() };
        let [first, second, third] = [random.fork(), random.fork(), random.fork()];
        join3(subject.run(&buyer, first), subject.run(&buyer, second), subject.run(&buyer, third)).await;
        histories.push(subject.history);
    }
    histories
}

impl Subject {
    /// Creates the order, then reads it and cancels it sometimes.
    async fn run(&self, buyer: &Client, mut random: Random) {
        self.call(buyer, Call::Create).await;
        for _ in 0..CALLS {
            let call = if random.choose_index(0..16) == 0 { Call::Cancel } else { Call::Read };
            self.call(buyer, call).await;
        }
    }

    /// Sends a call until there is a reply. Every attempt is an operation.
    async fn call(&self, buyer: &Client, call: Call) {
        eventually(async || {
            let pending = self.history.call(call.clone());
            let (reply, seen) = self.send(buyer, &call).await?;
            if let Reply::Created(id) | Reply::Replayed(id) = &reply {
                // The model compares the ids.
                let _ = self.id.set(id.clone());
            }
            match seen {
                Some(seen) => pending.reply_with(reply, (Call::Read, seen)),
                None => pending.reply(reply),
            }
            Some(())
        })
        .await;
    }

    /// Sends a call. Returns its reply, and what a create saw of the order when it replied. `None`:
    /// the reply proves nothing.
    async fn send(&self, buyer: &Client, call: &Call) -> Option<(Reply, Option<Reply>)> {
        let id = || self.id.get().expect("an order is created first");
        let request = match call {
            Call::Create => order_request(buyer, &[(&self.product, self.quantity)]).header("idempotency-key", &self.key),
            Call::Cancel => set_status(buyer, id(), "CANCELLED"),
            Call::Read => buyer.get(format!("/orders/{}", id())),
        };
        let response = request.attempt().await.ok()?;
        let body = response.json();
        let is_replayed = response.header("idempotency-replayed") == Some("true");
        match (call, response.status.as_u16()) {
            (Call::Create, 201 | 202) if is_replayed => Some((Reply::Replayed(id_of(&body)), None)),
            (Call::Create, 201 | 202) => Some((Reply::Created(id_of(&body)), Some(Reply::Is(status(&response), version(&response))))),
            // The order exists and has failed.
            (Call::Create, 409) if body["orderId"].is_string() => {
                let id = body["orderId"].as_str()?.to_owned();
                Some((if is_replayed { Reply::Replayed(id) } else { Reply::Created(id) }, None))
            }
            (Call::Read | Call::Cancel, 200) => Some((Reply::Is(status(&response), version(&response)), None)),
            (Call::Cancel, 409) if body["code"] == "illegal_transition" => Some((Reply::IllegalTransition, None)),
            (_, 409 | 429 | 500..600) => None,
            _ => panic!("{call:?}: {} {}", response.status, response.text()),
        }
    }
}

fn status(response: &Response) -> Status {
    let body = response.json();
    body["status"].as_str().and_then(Status::parse).unwrap_or_else(|| panic!("unknown status: {body}"))
}

/// Version of the entity tag.
fn version(response: &Response) -> u64 {
    let tag = response.header("etag").expect("an order has an entity tag");
    tag.trim_matches('"').parse().unwrap_or_else(|error| panic!("{error}: {tag}"))
}

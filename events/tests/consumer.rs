//! Event consumers against a real NATS server: each event takes effect exactly once, across handler
//! errors, broker crashes and consumer restarts.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use palisade_events::{Broker, Config, Consumer, Event, EventHandler, Handled, Outcome, SubscriptionItem, Topic};
use palisade_middleware::task;
use palisade_tests::{eventually, servers};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

fn event(subject: &str, sequence: i64) -> Event {
    Event {
        id: Uuid::new_v4(),
        source: Topic::ORDERS.source.to_owned(),
        kind: "palisade.orders.v1.confirmed".to_owned(),
        subject: subject.to_owned(),
        sequence,
        time: OffsetDateTime::UNIX_EPOCH,
        trace_parent: None,
        data: "{}".to_owned(),
    }
}

fn config(nats: &servers::Nats) -> Config {
    Config { nats_url: Some(nats.url().into()), ..Config::default() }
}

/// Publishes the event, with retries like those of a relay.
async fn publish(broker: &Broker, event: &Event) {
    eventually(async || {
        let outcomes = broker.publish(Topic::ORDERS, std::slice::from_ref(event)).await;
        (outcomes == [Outcome::Published]).then_some(())
    })
    .await;
}

/// Stores the last sequence of each subject, like a database table would. Every third event fails
/// on its first delivery, alternately before and after its effect.
#[derive(Default)]
struct RecordingHandler {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: BTreeMap<String, i64>,
    applied: Vec<(String, i64)>,
    failed: HashSet<Uuid>,
}

#[async_trait]
impl EventHandler for RecordingHandler {
    async fn handle(&self, event: &Event) -> Result<Handled, Box<dyn std::error::Error + Send + Sync>> {
        let mut state = self.state.lock().unwrap();
        let fails = event.sequence % 3 == 0 && state.failed.insert(event.id);
        if fails && event.sequence % 2 == 0 {
            return Err("before its effect".into());
        }
        let handled = if state.last.get(&event.subject).is_some_and(|last| *last >= event.sequence) {
            Handled::Duplicate
        } else {
            state.last.insert(event.subject.clone(), event.sequence);
            state.applied.push((event.subject.clone(), event.sequence));
            Handled::Processed
        };
        if fails { Err("after its effect".into()) } else { Ok(handled) }
    }
}

#[tokio::test]
async fn consumer_processes_each_event_once_across_restarts() {
    let mut nats = servers::nats();
    let ledger = Arc::new(RecordingHandler::default());
    let start = |config: Config| {
        let stop = CancellationToken::new();
        let consumer = Consumer { name: "ledger", topic: Topic::ORDERS, broker: Broker::new(&config).unwrap(), handler: ledger.clone() };
        drop(task::spawn(consumer.run(stop.clone())));
        stop
    };
    let broker = Broker::new(&config(&nats)).unwrap();
    // Events published before the consumer exists are consumed too.
    publish(&broker, &event("a", 1)).await;
    let first = start(config(&nats));
    for sequence in 2..=6 {
        let event = event("a", sequence);
        publish(&broker, &event).await;
        // The broker drops the duplicate by its id.
        publish(&broker, &event).await;
    }
    nats.kill();
    nats.restart();
    // A second replica continues at the position of the first.
    let _second = start(config(&nats));
    first.cancel();
    for sequence in 7..=12 {
        publish(&broker, &event("a", sequence)).await;
        publish(&broker, &event("b", sequence)).await;
    }
    eventually(async || (ledger.state.lock().unwrap().last == BTreeMap::from([("a".to_owned(), 12), ("b".to_owned(), 12)])).then_some(()))
        .await;
    let state = ledger.state.lock().unwrap();
    let of = |subject: &str| state.applied.iter().filter(|(of, _)| of == subject).map(|(_, sequence)| *sequence).collect::<Vec<_>>();
    assert_eq!((of("a"), of("b")), ((1..=12).collect(), (7..=12).collect()));
}

#[tokio::test]
async fn subscription_receives_events_and_reports_gaps() {
    let mut nats = servers::nats();
    let broker = Broker::new(&config(&nats)).unwrap();
    let mut events = broker.subscribe(Topic::ORDERS);
    let mut next = async |wanted: &SubscriptionItem| while events.next().await != *wanted {};
    // The first connection also counts as lagged: earlier events are unknown.
    next(&SubscriptionItem::Lagged).await;
    let first = event("a", 1);
    publish(&broker, &first).await;
    next(&SubscriptionItem::Event(Box::new(first))).await;
    nats.kill();
    next(&SubscriptionItem::Lagged).await;
    nats.restart();
    next(&SubscriptionItem::Lagged).await;
    let other = event("a", 2);
    publish(&broker, &other).await;
    next(&SubscriptionItem::Event(Box::new(other))).await;
}

#[tokio::test]
async fn in_memory_broker_delivers_events() {
    let broker = Broker::new(&Config::default()).unwrap();
    let ledger = Arc::new(RecordingHandler::default());
    let (mut events, stop) = (broker.subscribe(Topic::ORDERS), CancellationToken::new());
    let consumer = Consumer { name: "ledger", topic: Topic::ORDERS, broker: broker.clone(), handler: ledger.clone() };
    let consuming = task::spawn(consumer.run(stop.clone()));
    let sent = event("a", 1);
    // The consumer subscribes as soon as its task runs, so the event is published until it arrives.
    eventually(async || {
        publish(&broker, &sent).await;
        (!ledger.state.lock().unwrap().applied.is_empty()).then_some(())
    })
    .await;
    assert_eq!(ledger.state.lock().unwrap().applied, [("a".to_owned(), 1)]);
    assert_eq!(events.next().await, SubscriptionItem::Event(Box::new(sent)));
    stop.cancel();
    consuming.await.unwrap();
}

//! Event subscriptions: against a real NATS server, and in one process.

use palisade_events::{Broker, Config, Event, Outcome, SubscriptionItem, Topic};
use palisade_tests::{eventually, servers};
use time::OffsetDateTime;
use uuid::Uuid;

fn event(sequence: i64) -> Event {
    Event {
        id: Uuid::new_v4(),
        source: Topic::ORDERS.source.to_owned(),
        kind: "palisade.orders.v1.confirmed".to_owned(),
        subject: "a".to_owned(),
        sequence,
        time: OffsetDateTime::UNIX_EPOCH,
        trace_parent: None,
        data: "{}".to_owned(),
    }
}

/// Publishes the event, with retries like those of a relay.
async fn publish(broker: &Broker, event: &Event) {
    eventually(async || {
        let outcomes = broker.publish(Topic::ORDERS, std::slice::from_ref(event)).await;
        (outcomes == [Outcome::Published]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn subscription_receives_events_and_reports_gaps() {
    let mut nats = servers::nats();
    let broker = Broker::new(&Config { nats_url: Some(nats.url().into()), ..Config::default() }).unwrap();
    let mut events = broker.subscribe(Topic::ORDERS);
    let mut skip_to = async |item: SubscriptionItem| while events.next().await != item {};
    // The first connection also counts as a gap: earlier events are unknown.
    skip_to(SubscriptionItem::Lagged).await;
    let first = event(1);
    publish(&broker, &first).await;
    skip_to(SubscriptionItem::Event(Box::new(first))).await;
    nats.kill();
    skip_to(SubscriptionItem::Lagged).await;
    nats.restart();
    skip_to(SubscriptionItem::Lagged).await;
    let second = event(2);
    publish(&broker, &second).await;
    skip_to(SubscriptionItem::Event(Box::new(second))).await;
}

#[tokio::test]
async fn in_memory_broker_delivers_events() {
    let broker = Broker::new(&Config::default()).unwrap();
    let (mut events, mut other_topic) = (broker.subscribe(Topic::ORDERS), broker.subscribe(Topic::PRODUCTS));
    let sent = event(1);
    publish(&broker, &sent).await;
    assert_eq!(events.next().await, SubscriptionItem::Event(Box::new(sent)));
    assert!(futures_util::poll!(Box::pin(other_topic.next())).is_pending());
}

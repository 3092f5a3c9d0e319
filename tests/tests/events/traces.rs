//! Traces of events: the publish span is linked to the request that made the change.

use palisade_tests::{
    Shop,
    otlp::{Collector, catalogue::Catalogue},
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted_id, create_product, order_request},
};
use serde_json::json;

use crate::relay::{published_events, publishing_to};

#[tokio::test]
async fn publish_span_is_linked_to_its_request() {
    let (collector, nats) = (Collector::start(), servers::nats());
    let shop = Shop::separate_with(None, None, |service, command| {
        collector.configure(command);
        publishing_to(&nats)(service, command);
    });
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let answer = order_request(&buyer, &[(&product, 1)]).await;
    let id = accepted_id(&answer);
    let published = published_events(&nats, 3).await;
    for status in ["pending", "product_reserved", "confirmed"] {
        let name = format!("send palisade.orders.v1.{status}");
        let sent = collector.span(|span| span.name == name).await;
        assert_eq!((sent.kind, sent.status, &sent.parent), ("PRODUCER", "Unset", &None));
        assert_eq!(sent.links[0].0, answer.header("x-trace-id").unwrap(), "{sent:?}");
        let (headers, event) = published.iter().find(|(_, event)| event["id"] == sent.attribute("messaging.message.id")).unwrap();
        assert_eq!(event["subject"], json!(id));
        // The event carries the context of the request, the message that of its publish span.
        assert!(event["traceparent"].as_str().unwrap().contains(&sent.links[0].0));
        assert!(headers.get("traceparent").unwrap().as_str().contains(&sent.trace_id));
        Catalogue::read().check(&sent);
    }
}

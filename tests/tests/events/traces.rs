//! Where an event comes from can be seen: its sending is linked to the request that made the change.

use palisade_tests::{
    Shop,
    otlp::{Collector, catalogue::Catalogue},
    servers,
    shop::{ALL_SCOPES, CUSTOMER},
    shop_helpers::{accepted, order, create_product},
};
use serde_json::json;

use crate::relay::{telling, told};

#[tokio::test]
async fn sending_an_event_is_a_trace_of_its_own_linked_to_the_request_that_made_it() {
    let (collector, nats) = (Collector::start(), servers::nats());
    let shop = Shop::separate_with(None, None, |service, command| {
        collector.observe(command);
        telling(&nats)(service, command);
    });
    shop.ready().await;
    let (seller, buyer) = (shop.client("seller", ALL_SCOPES), shop.client("buyer", CUSTOMER));
    let product = create_product(&seller, 5).await;
    let answer = order(&buyer, &[(&product, 1)]).await;
    let id = accepted(&answer);
    let told = told(&nats, 3).await;
    for status in ["pending", "product_reserved", "confirmed"] {
        let name = format!("send palisade.orders.v1.{status}");
        let sent = collector.span(|span| span.name == name).await;
        assert_eq!((sent.kind, sent.status, &sent.parent), ("PRODUCER", "Unset", &None));
        assert_eq!(sent.links[0].0, answer.header("x-trace-id").unwrap(), "{sent:?}");
        let (headers, event) = told.iter().find(|(_, event)| event["id"] == sent.attribute("messaging.message.id")).unwrap();
        assert_eq!(event["subject"], json!(id));
        // The event names the work, the message its sending.
        assert!(event["traceparent"].as_str().unwrap().contains(&sent.links[0].0));
        assert!(headers.get("traceparent").unwrap().as_str().contains(&sent.trace_id));
        Catalogue::read().check(&sent);
    }
}

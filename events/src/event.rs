//! Events, their topics and their wire format: `CloudEvents` 1.0 JSON, structured mode.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// Content type of an event on the wire.
pub(crate) const CONTENT_TYPE: &str = "application/cloudevents+json";
const SPEC_VERSION: &str = "1.0";
const DATA_CONTENT_TYPE: &str = "application/json";

/// A family of events and the stream that stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Name of the stream.
    pub stream: &'static str,
    /// Subject filter of the stream.
    pub subjects: &'static str,
    /// `source` attribute of the events, which names the publishing service.
    pub source: &'static str,
}

/// A change of an order or a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique id, chosen in the transaction of the change. Consumers use it for deduplication.
    pub id: Uuid,
    /// Publishing service, e.g. `/palisade/orders`.
    pub source: String,
    /// Event type and subject of publication, e.g. `palisade.orders.v1.confirmed`.
    pub kind: String,
    /// Id of the changed object.
    pub subject: String,
    /// Increases with each change of the subject. An event whose sequence is not higher than the
    /// last one is outdated.
    pub sequence: i64,
    /// Time of the change.
    pub time: OffsetDateTime,
    /// W3C `traceparent` of the request that made the change.
    pub trace_parent: Option<String>,
    /// Event data as JSON.
    pub data: String,
}

/// An event that cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEvent {
    /// Invalid JSON, or a required attribute is missing.
    #[error("invalid CloudEvent")]
    Json(#[from] serde_json::Error),
    /// An attribute has an invalid value.
    #[error("invalid CloudEvents attribute {0}")]
    Attribute(&'static str),
}

/// Attributes in wire order. The sequence is a string because `CloudEvents` integers have 32 bits.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    specversion: &'a str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    datacontenttype: &'a str,
    sequence: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    traceparent: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Topic {
    /// Status changes of orders.
    pub const ORDERS: Self = Self { stream: "PALISADE_ORDERS", subjects: "palisade.orders.v1.>", source: "/palisade/orders" };
    /// Changes of products, including their stock.
    pub const PRODUCTS: Self = Self { stream: "PALISADE_PRODUCTS", subjects: "palisade.products.v1.>", source: "/palisade/products" };
}

impl Event {
    /// Encodes the event in its wire format.
    pub fn to_json(&self) -> Result<Vec<u8>, InvalidEvent> {
        let wire = Wire {
            specversion: SPEC_VERSION,
            id: self.id.to_string(),
            source: self.source.clone(),
            kind: self.kind.clone(),
            subject: self.subject.clone(),
            time: self.time.format(&Rfc3339).map_err(|_| InvalidEvent::Attribute("time"))?,
            datacontenttype: DATA_CONTENT_TYPE,
            sequence: self.sequence.to_string(),
            traceparent: self.trace_parent.clone(),
            data: serde_json::from_str(&self.data)?,
        };
        Ok(serde_json::to_vec(&wire)?)
    }

    /// Decodes an event from its wire format.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidEvent> {
        let wire: Wire<'_> = serde_json::from_slice(bytes)?;
        if wire.specversion != SPEC_VERSION {
            return Err(InvalidEvent::Attribute("specversion"));
        }
        Ok(Self {
            id: wire.id.parse().map_err(|_| InvalidEvent::Attribute("id"))?,
            source: wire.source,
            kind: wire.kind,
            subject: wire.subject,
            sequence: wire.sequence.parse().map_err(|_| InvalidEvent::Attribute("sequence"))?,
            time: OffsetDateTime::parse(&wire.time, &Rfc3339).map_err(|_| InvalidEvent::Attribute("time"))?,
            trace_parent: wire.traceparent,
            data: wire.data.get().to_owned(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn event(subject: &str, sequence: i64) -> Event {
        Event {
            id: Uuid::new_v4(),
            source: "/palisade/tests".to_owned(),
            kind: "palisade.tests.v1.changed".to_owned(),
            subject: subject.to_owned(),
            sequence,
            time: OffsetDateTime::UNIX_EPOCH,
            trace_parent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            data: r#"{"total":1.10}"#.to_owned(),
        }
    }

    #[test]
    fn event_json_roundtrip_is_lossless() {
        let event = event("a", 7);
        let json = event.to_json().unwrap();
        assert_eq!(Event::from_json(&json).unwrap(), event);
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        for (attribute, text) in
            [("specversion", "1.0"), ("type", "palisade.tests.v1.changed"), ("datacontenttype", "application/json"), ("sequence", "7")]
        {
            assert_eq!(value[attribute], text);
        }
        assert_eq!(value["time"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn from_json_rejects_invalid_events() {
        assert!(matches!(Event::from_json(b"{}"), Err(InvalidEvent::Json(_))));
        let json = String::from_utf8(event("a", 7).to_json().unwrap()).unwrap();
        assert!(matches!(Event::from_json(json.replace("\"7\"", "\"x\"").as_bytes()), Err(InvalidEvent::Attribute("sequence"))));
        assert!(matches!(Event::from_json(json.replace("\"1.0\"", "\"0.3\"").as_bytes()), Err(InvalidEvent::Attribute("specversion"))));
    }
}

//! Server-sent event (SSE) stream.

use serde_json::Value;
use tokio::time::timeout;

use crate::{HANG_TIMEOUT, client::Request};

/// Open stream.
#[derive(Debug)]
pub struct EventStream {
    response: reqwest::Response,
    buffer: String,
}

/// Event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `id` field.
    pub id: i64,
    /// `data` field: the order.
    pub order: Value,
}

impl Event {
    /// Returns the event ID and the order's status.
    pub fn id_and_status(&self) -> (i64, &str) {
        (self.id, self.order["status"].as_str().expect("an order has a status"))
    }
}

impl EventStream {
    /// Opens a stream and asserts the response headers.
    pub async fn open(request: Request) -> Self {
        let response = request.send().await.expect("server responds");
        assert_eq!(response.status(), 200, "{response:?}");
        let headers = response.headers();
        for (name, value) in [("content-type", "text/event-stream"), ("cache-control", "no-store")] {
            assert_eq!(headers[name], value, "{name}");
        }
        for id in ["x-request-id", "x-trace-id"] {
            assert!(headers.contains_key(id), "{id} is missing");
        }
        Self { response, buffer: String::new() }
    }

    /// Reads a stream that is no order event stream, with other headers.
    pub fn reading(response: reqwest::Response) -> Self {
        Self { response, buffer: String::new() }
    }

    /// Returns the next block of lines, event or comment. `None` at the end of the stream, which
    /// must not be inside an event.
    pub async fn next_block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                return Some(block);
            }
            let chunk = timeout(HANG_TIMEOUT, self.response.chunk())
                .await
                .expect("stream chunk arrives in time")
                .expect("stream is not interrupted");
            let Some(chunk) = chunk else {
                assert_eq!(self.buffer, "", "stream ended inside an event");
                return None;
            };
            self.buffer.push_str(std::str::from_utf8(&chunk).expect("events are UTF-8"));
        }
    }

    /// Returns the next event. `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.next_block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let Some(data) = field("data: ") else { continue };
            assert_eq!(field("event: "), Some("status"), "{block}");
            let id = field("id: ").and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id in {block}"));
            return Some(Event { id, order: serde_json::from_str(data).expect("data is JSON") });
        }
    }

    /// Collects event IDs and statuses up to the end of the stream.
    pub async fn collect_statuses(mut self) -> Vec<(i64, String)> {
        let mut statuses = Vec::new();
        while let Some(event) = self.next().await {
            statuses.push((event.id, event.id_and_status().1.to_owned()));
        }
        statuses
    }
}

//! A stream of server-sent events, read one by one.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::client::Request;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open stream.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    unread: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its `id`.
    pub id: i64,
    /// Its `data`: the order.
    pub order: Value,
}

impl Event {
    /// Its number, and the order's status.
    pub fn id_and_status(&self) -> (i64, &str) {
        (self.id, self.order["status"].as_str().expect("an order has a status"))
    }
}

impl Events {
    /// Opens a stream, which must be one.
    pub async fn open(request: Request) -> Self {
        let response = request.send().await.expect("the server answers");
        assert_eq!(response.status(), 200, "{response:?}");
        let headers = response.headers();
        for (name, value) in [("content-type", "text/event-stream"), ("cache-control", "no-store")] {
            assert_eq!(headers[name], value, "{name}");
        }
        for id in ["x-request-id", "x-trace-id"] {
            assert!(headers.contains_key(id), "{id} is missing");
        }
        Self { response, unread: String::new() }
    }

    /// The next block of lines, whatever is in it; `None` at the end of the stream, which must be a whole one.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                return Some(block);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("something comes in time").expect("the stream is not cut");
            let Some(chunk) = chunk else {
                assert_eq!(self.unread, "", "an event is whole");
                return None;
            };
            self.unread.push_str(std::str::from_utf8(&chunk).expect("events are UTF-8"));
        }
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let Some(data) = field("data: ") else { continue };
            assert_eq!(field("event: "), Some("status"), "{block}");
            let id = field("id: ").and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id in {block}"));
            return Some(Event { id, order: serde_json::from_str(data).expect("data is JSON") });
        }
    }

    /// What is told until the end of the stream: number and status.
    pub async fn rest(mut self) -> Vec<(i64, String)> {
        let mut told = Vec::new();
        while let Some(event) = self.next().await {
            told.push((event.id, event.id_and_status().1.to_owned()));
        }
        told
    }
}

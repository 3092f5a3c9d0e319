//! HTTP client of the simulated clients: one connection per request, so that a broken one never
//! affects the next.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use palisade_middleware::task;
use serde_json::Value;
use tokio::time::timeout;
use turmoil::net::TcpStream;

use crate::services::GATEWAY_PORT;

/// A request.
#[derive(Debug, Clone)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Bearer token.
    pub token: String,
    /// Idempotency key.
    pub key: Option<String>,
    /// JSON body.
    pub body: Option<Value>,
    /// Timeout for the whole exchange.
    pub timeout: Duration,
}

/// A complete response.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Version in the entity tag.
    pub version: Option<i64>,
    /// Whether a stored response was replayed.
    pub is_replayed: bool,
    /// Body; `Null` if empty.
    pub body: Value,
}

impl Reply {
    /// Whether the request had a definite outcome: it was carried out or rejected for good.
    pub fn is_definite(&self) -> bool {
        !matches!(self.status, 408 | 429 | 500..) && self.code() != "request_in_progress"
    }

    /// Problem code; empty if there is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Field of the body with an id.
    pub fn id(&self, field: &str) -> Option<uuid::Uuid> {
        self.body[field].as_str()?.parse().ok()
    }
}

/// Sends `call` and returns its response, or an error if its outcome is unknown.
pub async fn send(call: Call) -> io::Result<Reply> {
    timeout(call.timeout, exchange(call)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(call: Call) -> io::Result<Reply> {
    let tcp = TcpStream::connect(("gateway", GATEWAY_PORT)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(io::Error::other)?;
    drop(task::spawn(async move {
        // Ends with the exchange; its error is that of the request.
        let _ = connection.await;
    }));
    let mut request = Request::builder().method(call.method).uri(&call.path).header(header::HOST, "shop.example");
    request = request.header(header::AUTHORIZATION, format!("Bearer {}", call.token));
    if let Some(key) = &call.key {
        request = request.header("idempotency-key", key);
    }
    let body = match &call.body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    let request = request.body(Full::new(body)).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let version = head.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()?.trim_matches('"').parse().ok());
    Ok(Reply {
        status: head.status.as_u16(),
        version,
        is_replayed: head.headers.contains_key("idempotency-replayed"),
        body: if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).map_err(io::Error::other)? },
    })
}

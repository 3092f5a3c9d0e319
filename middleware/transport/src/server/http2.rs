//! HTTP/2 settings of a server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Maximum streams that a client of this crate opens on one connection.
const CLIENT_STREAMS: u32 = 200;
/// Maximum flow-control window of HTTP/2 (RFC 9113, section 6.9.1).
const MAX_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// HTTP/2 limits per connection, and the keep-alive that detects dead peers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http2 {
    /// Maximum concurrent streams per connection. A client queues further requests. At least 200,
    /// the number of streams that a client of this crate opens on one connection.
    pub max_streams: u32,
    /// Flow-control window of one request body, bytes: the maximum that is received but unread.
    pub stream_window_bytes: u32,
    /// Flow-control window of all request bodies of a connection together, bytes.
    pub connection_window_bytes: u32,
    /// Send buffer per stream, bytes: the maximum of a response that is buffered until the client
    /// reads it.
    pub send_buffer_bytes: u32,
    /// Interval of keep-alive PINGs on a silent connection, milliseconds.
    pub keep_alive_ms: u64,
    /// Timeout of a keep-alive PING, milliseconds. The connection is closed afterwards.
    pub keep_alive_timeout_ms: u64,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_streams: 256,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            send_buffer_bytes: 64 * 1024,
            keep_alive_ms: 20_000,
            keep_alive_timeout_ms: 10_000,
        }
    }
}

impl Http2 {
    /// Returns the first invalid key with its rule.
    pub(super) fn validate(&self) -> Option<(&'static str, String)> {
        let required = [
            ("server.http2.max_streams", u64::from(self.max_streams)),
            ("server.http2.stream_window_bytes", self.stream_window_bytes.into()),
            ("server.http2.connection_window_bytes", self.connection_window_bytes.into()),
            ("server.http2.send_buffer_bytes", self.send_buffer_bytes.into()),
            ("server.http2.keep_alive_ms", self.keep_alive_ms),
            ("server.http2.keep_alive_timeout_ms", self.keep_alive_timeout_ms),
        ];
        if let Some((key, _)) = required.into_iter().find(|(_, value)| *value == 0) {
            return Some((key, "must be greater than 0".to_owned()));
        }
        if self.max_streams < CLIENT_STREAMS {
            return Some((
                "server.http2.max_streams",
                format!("must be at least {CLIENT_STREAMS}, the number of streams that a client of this crate opens"),
            ));
        }
        let windows = [required[1], required[2]];
        let too_large = windows.into_iter().find(|(_, bytes)| *bytes > MAX_WINDOW_BYTES.into());
        too_large.map(|(key, _)| (key, format!("must not be greater than {MAX_WINDOW_BYTES}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Invalidate = fn(&mut Http2);

    #[test]
    fn config_rules_name_their_key() {
        assert_eq!(Http2::default().validate(), None);
        let invalid: [(&str, Invalidate); 5] = [
            ("max_streams", |http2| http2.max_streams = 199),
            ("stream_window_bytes", |http2| http2.stream_window_bytes = 1 << 31),
            ("connection_window_bytes", |http2| http2.connection_window_bytes = 0),
            ("send_buffer_bytes", |http2| http2.send_buffer_bytes = 0),
            ("keep_alive_timeout_ms", |http2| http2.keep_alive_timeout_ms = 0),
        ];
        for (key, invalidate) in invalid {
            let mut http2 = Http2::default();
            invalidate(&mut http2);
            assert_eq!(http2.validate().map(|(wrong, _)| wrong), Some(format!("server.http2.{key}").as_str()));
        }
    }
}

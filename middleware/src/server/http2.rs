//! What an operator may set of one HTTP/2 connection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a client of this crate puts on one connection.
const CLIENT_STREAMS: u32 = 200;
/// The most that HTTP/2 can say (RFC 9113, section 6.9.1).
const MAX_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// What one HTTP/2 connection may hold, and how a peer that went away silently is found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http2 {
    /// Requests in flight on one connection; a client waits with more. At least 200, the streams that a client of this crate puts on one.
    pub max_streams: u32,
    /// What of one request's body may be on its way here unread, bytes.
    pub stream_window_bytes: u32,
    /// The same of all requests of a connection together, bytes.
    pub connection_window_bytes: u32,
    /// What of an answer is kept here until its client takes it, bytes for each stream.
    pub send_buffer_bytes: u32,
    /// A client that was silent for this long is asked whether it is there (PING), milliseconds.
    pub keep_alive_ms: u64,
    /// Without an answer within this time its connection is closed, milliseconds.
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
    /// The key that is out of its range, and the range.
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
            return Some(("server.http2.max_streams", format!("must be at least {CLIENT_STREAMS}, which clients of this crate put on a connection")));
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
    fn the_default_is_valid_and_every_rule_names_its_key() {
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

//! Settings of the limits on slow peers.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use palisade_resilience::respond::Protocol;

use super::{data_rate::MinimumRate, served_io::LingerLimits, waiting_bytes::Bounds};

/// Minimum data rates. A slower peer is disconnected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataRate {
    /// Minimum rate of a request body, bytes per second, averaged over `request_grace_ms`. 0
    /// requires some progress in that time.
    pub request_bytes_per_second: u64,
    /// Maximum time to wait for the next bytes of a request body, milliseconds. A body that arrives
    /// too slowly fails.
    pub request_grace_ms: u64,
    /// Minimum rate at which a client reads a response, bytes per second, averaged over
    /// `write_timeout_ms`. 0 requires some progress in that time.
    pub response_bytes_per_second: u64,
}

impl Default for DataRate {
    fn default() -> Self {
        Self { request_bytes_per_second: 240, request_grace_ms: 5_000, response_bytes_per_second: 240 }
    }
}

impl DataRate {
    pub(super) fn request(&self) -> MinimumRate {
        MinimumRate { bytes_per_second: self.request_bytes_per_second, grace: Duration::from_millis(self.request_grace_ms) }
    }
}

/// Lingering close of an HTTP/1 connection whose request was answered before its body was read. The
/// rest of the body is discarded, so that the client receives the response.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Linger {
    /// Maximum time of a lingering close, milliseconds. 0 closes at once.
    pub timeout_ms: u64,
    /// Maximum bytes that are discarded.
    pub max_bytes: u64,
}

impl Default for Linger {
    fn default() -> Self {
        Self { timeout_ms: 5_000, max_bytes: 16 * 1024 * 1024 }
    }
}

impl Linger {
    pub(super) fn limits(&self) -> LingerLimits {
        let bytes = if self.timeout_ms == 0 { 0 } else { self.max_bytes };
        LingerLimits { time: Duration::from_millis(self.timeout_ms), bytes }
    }
}

/// Limits of the response bytes in memory that wait for their readers. Above half of a limit, a
/// connection that reads nothing for a second is closed; above the limit, for half a second.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WaitingBytes {
    /// Maximum waiting bytes of the port. 0 disables.
    pub max: usize,
    /// Maximum waiting bytes of one client IP (IPv6: /64 network) of an HTTP port. Trusted proxies
    /// are exempt. 0 disables.
    pub max_per_address: usize,
    /// Maximum waiting bytes of one connection of an HTTP port. A single response may exceed it. 0
    /// disables.
    pub max_per_connection: usize,
}

impl Default for WaitingBytes {
    fn default() -> Self {
        Self { max: 256 * 1024 * 1024, max_per_address: 64 * 1024 * 1024, max_per_connection: 16 * 1024 * 1024 }
    }
}

impl WaitingBytes {
    pub(super) fn bounds(&self, protocol: Protocol) -> Bounds {
        match protocol {
            Protocol::Http => Bounds { port: self.max, address: self.max_per_address, connection: self.max_per_connection },
            // The callers are few services, each of which serves many users.
            Protocol::Grpc => Bounds { port: self.max, address: 0, connection: 0 },
        }
    }
}

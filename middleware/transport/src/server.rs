//! Server transport: settings of a port, and the accept loop that serves it. The server stack is
//! assembled by the facade `palisade-middleware`.

pub mod accept;
pub mod grpc_request_body;
mod http2;
pub mod http_guard;

use palisade_resilience::{
    adaptive_limit, fault_injection,
    method_table::{Access, Method},
    rate_limit,
    setting::Invalid,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::tls;

pub use http2::Http2;

/// Method table entries that every gRPC port serves: health and reflection.
pub static GRPC_INFRASTRUCTURE: [Method; 5] = [
    Method::grpc("/grpc.health.v1.Health/Check", Access::Public).infrastructure(),
    Method::grpc("/grpc.health.v1.Health/Watch", Access::Public).infrastructure().streaming(),
    Method::grpc("/grpc.health.v1.Health/List", Access::Public).infrastructure(),
    Method::grpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Public).infrastructure().streaming().request_stream(),
    Method::grpc("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::Public)
        .infrastructure()
        .streaming()
        .request_stream(),
];

/// Server limits and timeouts.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Deadline of a request without one, milliseconds.
    pub default_deadline_ms: u64,
    /// Maximum deadline of a request, milliseconds. A longer one is shortened.
    pub max_deadline_ms: u64,
    /// Maximum requests whose body is being received, and as many that are being processed; bounds
    /// memory. Requests above it are rejected: with 429 / `RESOURCE_EXHAUSTED` those of a caller
    /// above its share, with 503 / UNAVAILABLE all others. Keep it well above the adaptive limit
    /// and its queue.
    pub max_in_flight: usize,
    /// Maximum size of a request body that is received before the handler runs, bytes. A longer
    /// body is not received further, and the handler reads an error.
    pub max_body_bytes: usize,
    /// Timeout for the request body after its head, milliseconds. The request is rejected with 408
    /// / `DEADLINE_EXCEEDED` afterwards. The deadline of the request applies as well.
    pub body_read_timeout_ms: u64,
    /// Maximum open streams of all callers. Streams above it are rejected with 503 / UNAVAILABLE.
    pub max_streams: usize,
    /// Maximum open streams per caller, anonymous ones by address. Streams above it are rejected
    /// with 429 / `RESOURCE_EXHAUSTED`.
    pub max_streams_per_caller: usize,
    /// Maximum age of a stream, milliseconds, with 10 % jitter. The stream then ends, so that the
    /// client reconnects and finds new replicas. It also ends when its connection drains.
    pub max_stream_age_ms: u64,
    /// Maximum open connections. At the limit the connection that has been idle for the longest
    /// time is closed; if none is idle, one of an address with more than 1/16 of them. Otherwise
    /// further connections wait to be accepted.
    pub max_connections: usize,
    /// Maximum open connections per client IP (IPv6: per /64 network). At the limit the longest
    /// idle connection of the address is closed; if none is idle, further connections are closed at
    /// once. Addresses in `address_limit.trusted_proxies` are exempt. 0 disables.
    pub max_connections_per_address: usize,
    /// Maximum age of a connection, milliseconds, with 10 % jitter. The connection then drains
    /// (GOAWAY), so that load reaches new replicas, and is closed after the longer of
    /// `drain_timeout_ms` and `max_deadline_ms`. 0 disables.
    pub max_connection_age_ms: u64,
    /// Timeout for the first request of a connection, milliseconds. The connection is closed
    /// afterwards.
    pub first_request_timeout_ms: u64,
    /// Timeout for the headers of each later HTTP/1 request from their first byte, milliseconds.
    /// The connection is closed afterwards.
    pub header_read_timeout_ms: u64,
    /// Maximum idle time of an HTTP/1 connection between requests, milliseconds. The connection is
    /// closed afterwards. Keep it above the idle timeout of a load balancer in front.
    pub idle_timeout_ms: u64,
    /// Timeout for a client that reads nothing of its response, milliseconds. The HTTP/1 connection
    /// or HTTP/2 stream is closed afterwards.
    pub write_timeout_ms: u64,
    /// PROXY protocol version 2: connections from `address_limit.trusted_proxies` must begin with
    /// its header, which names the client address. Other connections must not.
    pub proxy_protocol: bool,
    /// Minimum data rates of clients.
    pub data_rate: accept::DataRate,
    /// Response bytes that wait for their readers.
    pub waiting_bytes: accept::WaitingBytes,
    /// Lingering close after an early response.
    pub linger: accept::Linger,
    /// Lame duck time after SIGTERM, milliseconds. Requests are still accepted while load balancers
    /// notice the shutdown.
    pub lame_duck_ms: u64,
    /// Maximum time for requests in flight to finish after the lame duck time, milliseconds. Open
    /// connections are closed afterwards.
    pub drain_timeout_ms: u64,
    /// HTTP/2 limits per connection.
    pub http2: Http2,
    /// TLS of the port.
    pub tls: tls::PortTls,
    /// Rate limit per caller.
    pub rate_limit: rate_limit::Config,
    /// Per-IP rate limit, applied before authentication.
    pub address_limit: rate_limit::AddressConfig,
    /// Fault injection for game days.
    pub fault_injection: fault_injection::Config,
    /// Adaptive concurrency limit of running requests.
    pub adaptive_limit: adaptive_limit::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_deadline_ms: 10_000,
            max_deadline_ms: 30_000,
            max_in_flight: 4_096,
            // 256 KiB, the largest message of the services, with its framing.
            max_body_bytes: 264 * 1024,
            body_read_timeout_ms: 10_000,
            max_streams: 2_048,
            max_streams_per_caller: 32,
            max_stream_age_ms: 600_000,
            max_connections: 8_192,
            max_connections_per_address: 1_024,
            max_connection_age_ms: 300_000,
            first_request_timeout_ms: 10_000,
            header_read_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            write_timeout_ms: 30_000,
            proxy_protocol: false,
            data_rate: accept::DataRate::default(),
            waiting_bytes: accept::WaitingBytes::default(),
            linger: accept::Linger::default(),
            lame_duck_ms: 0,
            drain_timeout_ms: 20_000,
            http2: Http2::default(),
            tls: tls::PortTls::default(),
            rate_limit: rate_limit::Config::default(),
            address_limit: rate_limit::AddressConfig::default(),
            fault_injection: fault_injection::Config::default(),
            adaptive_limit: adaptive_limit::Config::default(),
        }
    }
}

impl Config {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        let required = [
            ("server.default_deadline_ms", self.default_deadline_ms),
            ("server.max_deadline_ms", self.max_deadline_ms),
            ("server.max_in_flight", self.max_in_flight as u64),
            ("server.max_body_bytes", self.max_body_bytes as u64),
            ("server.body_read_timeout_ms", self.body_read_timeout_ms),
            ("server.max_streams", self.max_streams as u64),
            ("server.max_streams_per_caller", self.max_streams_per_caller as u64),
            ("server.max_stream_age_ms", self.max_stream_age_ms),
            ("server.max_connections", self.max_connections as u64),
            ("server.first_request_timeout_ms", self.first_request_timeout_ms),
            ("server.header_read_timeout_ms", self.header_read_timeout_ms),
            ("server.idle_timeout_ms", self.idle_timeout_ms),
            ("server.write_timeout_ms", self.write_timeout_ms),
            ("server.data_rate.request_grace_ms", self.data_rate.request_grace_ms),
            ("server.drain_timeout_ms", self.drain_timeout_ms),
        ];
        match self.address_limit.proxies() {
            Err(text) => {
                return Err(Invalid::new("server.address_limit.trusted_proxies", format!("{text:?} is not an IP address or network")));
            }
            Ok(proxies) if self.proxy_protocol && proxies.is_empty() => {
                return Err(Invalid::new("server.proxy_protocol", "requires server.address_limit.trusted_proxies"));
            }
            Ok(_) => {}
        }
        self.adaptive_limit.validate()?;
        if let Some((key, rule)) = self.http2.validate() {
            return Err(Invalid::new(key, rule));
        }
        let limits = [
            ("server.rate_limit.burst", self.rate_limit.per_second, self.rate_limit.burst),
            ("server.address_limit.burst", self.address_limit.per_second, self.address_limit.burst),
            ("server.address_limit.public_burst", self.address_limit.public_per_second, self.address_limit.public_burst),
        ];
        if let Some((key, ..)) = limits.iter().find(|(_, per_second, burst)| *per_second > 0 && *burst == 0) {
            return Err(Invalid::new(*key, "must be greater than 0, or its rate per second 0 for no limit"));
        }
        match required.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Invalid::new(*key, "must be greater than 0")),
            None if self.max_connections > Semaphore::MAX_PERMITS => {
                Err(Invalid::new("server.max_connections", format!("must not be greater than {}", Semaphore::MAX_PERMITS)))
            }
            None if self.default_deadline_ms > self.max_deadline_ms => {
                Err(Invalid::new("server.default_deadline_ms", "must not be greater than max_deadline_ms"))
            }
            None => Ok(()),
        }
    }
}

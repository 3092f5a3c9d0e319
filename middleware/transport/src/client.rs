//! Client transport: connections, load balancing and transport errors. The client stacks around it
//! are assembled by the facade `palisade-middleware`.

pub mod address;
pub mod balance;
mod connect_backoff;
mod connection;
mod connector;
mod endpoint;
mod happy_eyeballs;
pub mod http;
mod trace_verdicts;

use std::time::Duration;

use palisade_resilience::circuit_breaker;

use crate::tls::UpstreamTls;

pub use connection::{Connection, InvalidConfig as InvalidConnection};
pub use connector::ConnectError;
pub use endpoint::rejection_of;

/// Endpoints of one target: how they are connected to and balanced.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Timeout for the TCP and TLS handshakes together.
    pub connect_timeout: Duration,
    /// Timeout of one attempt: the latency that a failure counts for in load balancing.
    pub attempt_timeout: Duration,
    /// TLS towards the target.
    pub tls: UpstreamTls,
    /// Keep-alive and reconnect backoff.
    pub connection: Connection,
    /// Load balancing.
    pub balance: balance::Config,
    /// Circuit breaker of each endpoint, if there are several.
    pub outlier_detection: circuit_breaker::Config,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(5),
            tls: UpstreamTls::default(),
            connection: Connection::default(),
            balance: balance::Config::default(),
            outlier_detection: balance::outlier_detection_defaults(),
        }
    }
}

/// Address that is not `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("url must be http://host:port, or several separated by commas, or begin with dns://, srv:// or etcd://, not {0:?}")]
pub struct InvalidAddress(pub String);

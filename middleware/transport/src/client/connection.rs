//! Settings of the connections to one address.

use std::{io, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// PING interval that every gRPC server accepts: more than the five minutes of gRFC A8.
const STANDARD_KEEP_ALIVE_MS: u64 = 310_000;
/// PING interval towards a server of this crate.
const OWN_KEEP_ALIVE_MS: u64 = 20_000;
/// Maximum of the timeouts, a week: far below the limits of timers and of the kernel.
const MAX_TIMEOUT_MS: u64 = 7 * 24 * 3_600_000;
/// Interval of TCP keep-alive probes after the first.
const TCP_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Keep-alive and reconnect backoff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// Interval of HTTP/2 keep-alive PINGs on a silent connection, milliseconds. Default: 20000
    /// towards the services of this project, else 310000, because a gRPC server may close a
    /// connection with more than one PING in five minutes (gRFC A8).
    pub keep_alive_ms: Option<u64>,
    /// Timeout of a keep-alive PING, milliseconds. The connection is closed afterwards.
    pub keep_alive_timeout_ms: u64,
    /// Whether PINGs are also sent on a connection without calls. Default: true towards the
    /// services of this project, else false, as gRPC servers refuse them by default (gRFC A8).
    pub keep_alive_without_calls: Option<bool>,
    /// Timeout for the TCP acknowledgement of sent data, milliseconds (gRFC A18). The connection is
    /// closed afterwards. Also the idle time before TCP keep-alive probes. Detects a dead host
    /// without PINGs. 0 disables.
    pub tcp_user_timeout_ms: u64,
    /// Backoff after the first failed connection attempt, milliseconds. Doubles with each further
    /// failure, with 20 % jitter.
    pub connect_backoff_ms: u64,
    /// Maximum connect backoff, milliseconds. Keep it well below the open time of the circuit
    /// breakers, so that their probes can connect.
    pub max_connect_backoff_ms: u64,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            keep_alive_ms: None,
            keep_alive_timeout_ms: 5_000,
            keep_alive_without_calls: None,
            tcp_user_timeout_ms: 20_000,
            connect_backoff_ms: 50,
            max_connect_backoff_ms: 1_000,
        }
    }
}

impl Connection {
    /// Fills in the unset values for a server of this crate, which accepts any PING. A silent
    /// server is detected within 25 seconds, even behind a proxy.
    #[must_use]
    pub fn for_own_server(mut self) -> Self {
        self.keep_alive_ms.get_or_insert(OWN_KEEP_ALIVE_MS);
        self.keep_alive_without_calls.get_or_insert(true);
        self
    }

    /// Returns the PING interval. The default is accepted by every gRPC server.
    pub(super) fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.keep_alive_ms.unwrap_or(STANDARD_KEEP_ALIVE_MS))
    }

    /// Sets TCP keep-alive and the TCP user timeout of a connection.
    pub(super) fn detect_dead_peer(&self, tcp: &TcpStream) -> io::Result<()> {
        if self.tcp_user_timeout_ms == 0 {
            return Ok(());
        }
        let timeout = Duration::from_millis(self.tcp_user_timeout_ms);
        let socket = SockRef::from(tcp);
        // The kernel takes whole seconds.
        let idle = timeout.max(Duration::from_secs(1));
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(TCP_PROBE_INTERVAL))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(timeout))?;
        Ok(())
    }
}

/// Invalid connection setting; the text begins with its key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// Value that must be positive.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Value above its maximum.
    #[error("{0} must not be greater than {MAX_TIMEOUT_MS}")]
    TooLong(&'static str),
    /// The maximum is below the initial backoff.
    #[error("max_connect_backoff_ms must be at least connect_backoff_ms")]
    Order,
}

impl Connection {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let required = [
            ("keep_alive_ms", self.keep_alive_ms.unwrap_or(STANDARD_KEEP_ALIVE_MS)),
            ("keep_alive_timeout_ms", self.keep_alive_timeout_ms),
            ("connect_backoff_ms", self.connect_backoff_ms),
        ];
        let bounded = [
            ("keep_alive_ms", self.keep_alive_ms.unwrap_or_default()),
            ("keep_alive_timeout_ms", self.keep_alive_timeout_ms),
            ("tcp_user_timeout_ms", self.tcp_user_timeout_ms),
        ];
        if let Some((key, _)) = bounded.into_iter().find(|(_, value)| *value > MAX_TIMEOUT_MS) {
            return Err(InvalidConfig::TooLong(key));
        }
        match required.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(InvalidConfig::Zero(key)),
            None if self.max_connect_backoff_ms < self.connect_backoff_ms => Err(InvalidConfig::Order),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_pings_are_accepted_by_every_grpc_server() {
        let defaults = Connection::default();
        // gRFC A8: MIN_RECV_PING_INTERVAL_WITHOUT_DATA is 5 minutes, PERMIT_KEEPALIVE_WITHOUT_CALLS
        // is false.
        assert!(defaults.keep_alive() > Duration::from_mins(5) && defaults.keep_alive_without_calls != Some(true));
        assert!(defaults.validate().is_ok());
        let own = Connection { keep_alive_ms: Some(7_000), ..defaults.clone() }.for_own_server();
        assert_eq!((own.keep_alive_ms, own.keep_alive_without_calls), (Some(7_000), Some(true)));
        assert_eq!(defaults.for_own_server().keep_alive(), Duration::from_secs(20));
    }

    #[test]
    fn config_error_names_setting() {
        let text = |connection: Connection| connection.validate().unwrap_err().to_string();
        let base = Connection::default();
        assert!(text(Connection { keep_alive_ms: Some(0), ..base.clone() }).starts_with("keep_alive_ms "));
        assert!(text(Connection { keep_alive_ms: Some(u64::MAX), ..base.clone() }).starts_with("keep_alive_ms "));
        assert!(text(Connection { tcp_user_timeout_ms: 1_000_000_000_000_000, ..base }).starts_with("tcp_user_timeout_ms "));
    }

    #[tokio::test]
    async fn dead_host_is_detected_by_tcp() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Connection { tcp_user_timeout_ms: 7_000, ..Connection::default() }.detect_dead_peer(&tcp).unwrap();
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    }
}

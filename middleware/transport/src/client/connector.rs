//! TCP and TLS connector with connect backoff. Without it tonic reconnects for every call.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    time::Instant,
};
use tower::Service;

use super::{Connection, connect_backoff::ConnectBackoff, happy_eyeballs::connect_first};
use crate::{
    network::{self, Socket},
    tls,
};
use palisade_resilience::jitter;

/// Reason for a failed connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// In connect backoff; the next attempt follows after this time.
    #[error("connect backoff, next attempt in {0:?}")]
    BackingOff(Duration),
    /// The TCP and TLS handshakes timed out.
    #[error("connect timed out after {0:?}")]
    TimedOut(Duration),
    /// DNS, TCP or TLS error, including a failed certificate check.
    #[error("cannot connect")]
    Failed(#[from] io::Error),
}

/// Connect parameters common to all addresses of an upstream.
#[derive(Debug, Clone)]
pub(super) struct ConnectParams {
    /// Timeout for the TCP and TLS handshakes together.
    pub(super) timeout: Duration,
    /// `None` for plain text.
    pub(super) tls: Option<tls::Connector>,
    pub(super) connection: Connection,
}

impl ConnectParams {
    #[cfg(test)]
    pub(super) fn plain(timeout: Duration) -> Self {
        Self { timeout, tls: None, connection: Connection::default() }
    }

    /// Connects to the host and port of `uri`, without a timeout.
    pub(super) async fn connect(&self, uri: &Uri) -> io::Result<tls::Stream<Socket>> {
        let (host, port) = (uri.host().unwrap_or_default().trim_matches(['[', ']']), uri.port_u16().unwrap_or(80));
        let socket = match network::installed() {
            Some(network) => Socket::Installed(network.connect(host.to_owned(), port).await?),
            None => Socket::Tcp(self.connect_tcp(host, port).await?),
        };
        match &self.tls {
            Some(tls) => tls.connect(socket).await,
            None => Ok(tls::Stream::Plain(socket)),
        }
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = lookup_host((host, port)).await?;
        let tcp = connect_first(addresses, self.timeout, TcpStream::connect).await?;
        // Disables Nagle's algorithm: a small frame could otherwise wait 40 ms for a delayed ACK.
        tcp.set_nodelay(true)?;
        self.connection.detect_dead_peer(&tcp)?;
        Ok(tcp)
    }
}

/// Connects to the host and port of a URI.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    params: ConnectParams,
    backoff: ConnectBackoff,
}

impl Connector {
    pub(super) fn new(params: ConnectParams) -> Self {
        let [base, max] = [params.connection.connect_backoff_ms, params.connection.max_connect_backoff_ms].map(Duration::from_millis);
        let backoff = ConnectBackoff::new(base, max, jitter::random_unit);
        Self { params, backoff }
    }

    pub(super) fn backoff(&self) -> ConnectBackoff {
        self.backoff.clone()
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<tls::Stream<Socket>>, ConnectError> {
        self.backoff.check(Instant::now()).map_err(ConnectError::BackingOff)?;
        let connected = match tokio::time::timeout(self.params.timeout, self.params.connect(&uri)).await {
            Ok(connected) => connected.map_err(ConnectError::Failed),
            Err(_) => Err(ConnectError::TimedOut(self.params.timeout)),
        };
        match connected {
            Ok(stream) => {
                self.backoff.succeeded();
                Ok(TokioIo::new(stream))
            }
            Err(error) => {
                self.backoff.failed(Instant::now());
                Err(error)
            }
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<tls::Stream<Socket>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_per_failure_and_resets_on_success() {
        let backoff = ConnectBackoff::new(Duration::from_millis(50), Duration::from_secs(1), || 0.5);
        let now = Instant::now();
        for backoff_ms in [50, 100, 200, 400, 800, 1000, 1000] {
            backoff.failed(now);
            assert!(backoff.is_backing_off(now));
            assert_eq!(backoff.check(now), Err(Duration::from_millis(backoff_ms)));
            assert_eq!(backoff.check(now + Duration::from_millis(backoff_ms)), Ok(()));
        }
        backoff.succeeded();
        assert!(!backoff.is_backing_off(now));
        assert_eq!(backoff.check(now), Ok(()));
    }

    #[tokio::test]
    async fn connector_does_no_io_during_backoff() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let connector = Connector::new(ConnectParams::plain(Duration::from_secs(1)));
        let backoff = connector.backoff();
        assert!(!backoff.is_backing_off(Instant::now()));
        assert!(matches!(connector.clone().connect(uri.clone()).await, Err(ConnectError::Failed(_))));
        assert!(backoff.is_backing_off(Instant::now()));
        assert!(matches!(connector.connect(uri).await, Err(ConnectError::BackingOff(_))));
    }
}

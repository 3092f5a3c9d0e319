//! Accept loop: accepts and serves connections with every limit set, which neither `axum::serve`
//! nor tonic's server offers.
//!
//! `axum::serve` has no timer and so no header timeout. tonic's server has no limit on resets
//! caused by the server itself, spins when file descriptors run out, and waits forever for a silent
//! peer at shutdown.

mod connection_service;
mod connection_state;
mod connections;
mod data_rate;
mod deadlines;
mod flow_control_timeout;
mod limits;
mod open_connections;
mod proxy_protocol;
mod request_body;
mod response_body;
mod served_io;
mod shutdown_signal;
mod waiting_bytes;

use std::{convert::Infallible, error::Error as StdError, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tower::Service;

use super::Config;
use crate::tls;
use palisade_resilience::respond::Protocol;

pub use connections::Connections;
pub use limits::{DataRate, Linger, WaitingBytes};
pub use request_body::{BodyPace, RequestBody, TooSlow};

const BACKLOG: u32 = 1_024;
/// Backoff after an accept error that persists (no file descriptors, no memory).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Idle time before TCP keep-alive probes; covers the time in which a handler works without
/// traffic.
const TCP_KEEP_ALIVE: Duration = Duration::from_mins(1);

/// Maximum unsent bytes in the kernel's buffer of a connection (`TCP_NOTSENT_LOWAT`). More would
/// hide for minutes that a peer does not read.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Reasons counted by [`record_connection_closed`], preregistered with 0 so that the first
/// increment is a visible rise.
const CLOSE_REASONS: [&str; 14] = [
    "tls",
    "proxy_protocol",
    "no_request",
    "slow_header",
    "slow_body",
    "age",
    "drain",
    "evicted",
    "busy_evicted",
    "address",
    "address_evicted",
    "write_stall",
    "stream_stall",
    "waiting_bytes",
];

/// Listening socket with its optional TLS.
#[derive(Debug)]
pub struct Listener {
    /// Socket bound by [`bind`].
    pub listener: TcpListener,
    /// `None` for plain text.
    pub tls: Option<tls::Acceptor>,
    /// Label of the port in metrics: `public` or `admin`.
    pub label: &'static str,
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None, label: "public" }
    }
}

/// Binds `address`; port 0 picks a free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Inherited by the accepted connections.
    #[cfg(target_os = "linux")]
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `service` on `port` until `shutdown`, then drains requests in flight for at most
/// `drain_timeout_ms`.
pub async fn serve<S, B>(port: impl Into<Listener>, protocol: Protocol, service: S, config: &Config, shutdown: CancellationToken)
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let Listener { listener, tls, label } = port.into();
    // Without `TCP_NODELAY` the last packet of a response waits for the peer's delayed ACK.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEP_ALIVE));
    let incoming = incoming.map(|stream| stream.and_then(|stream| stream.peer_addr().map(|peer| (stream, peer))));
    serve_incoming(incoming, Connections::new(label, protocol, config, tls), service, shutdown).await;
}

/// As [`serve`] for connections from another source than a listening socket.
pub async fn serve_incoming<I, S, B>(
    mut incoming: impl Stream<Item = io::Result<(I, SocketAddr)>> + Unpin,
    connections: Connections,
    service: S,
    shutdown: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    for reason in CLOSE_REASONS {
        palisade_resilience::counter!("palisade.connections.closed", "reason" => reason).increment(0);
    }
    let connections = Arc::new(connections);
    let opening = connections.clone();
    let accept = async move {
        loop {
            let accepted = accept(&mut incoming).await;
            let slot = opening.table.acquire_slot().await;
            opening.open(service.clone(), accepted, slot);
        }
    };
    shutdown.run_until_cancelled(accept).await;
    connections.drain().await;
}

async fn accept<I>(incoming: &mut (impl Stream<Item = io::Result<(I, SocketAddr)>> + Unpin)) -> (I, SocketAddr) {
    let mut logged = false;
    loop {
        match incoming.next().await.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into())) {
            Ok(accepted) => return accepted,
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut logged, true) {
                    tracing::warn!(%error, "accept failed, retrying");
                }
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected};
    // Without a peer address (NotConnected) the connection is already closed.
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | NotConnected)
}

/// Counts a connection or stream closed by a limit. The counter is looked up each time, because
/// this is rare.
fn record_connection_closed(reason: &'static str) {
    palisade_resilience::counter!("palisade.connections.closed", "reason" => reason).increment(1);
}

//! Accept loop: accepts and serves connections with every limit set, which neither `axum::serve`
//! nor tonic's server offers.
//!
//! `axum::serve` has no timer and so no header timeout. tonic's server has no limit on resets
//! caused by the server itself, spins when file descriptors run out, and waits forever for a silent
//! peer at shutdown.

mod connections;
mod flow_control_timeout;
mod per_ip_limit;
mod shutdown_signal;
mod write_timeout;

use std::{convert::Infallible, error::Error as StdError, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tower::Service;

use self::per_ip_limit::PerIpConnectionLimit;
use super::Config;
use crate::tls;
use palisade_resilience::respond::Protocol;

pub use connections::Connections;

const BACKLOG: u32 = 1_024;
/// Backoff after an accept error that persists (no file descriptors, no memory).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Idle time before TCP keep-alive probes; covers the time in which a handler works without
/// traffic.
const TCP_KEEP_ALIVE: Duration = Duration::from_mins(1);

/// Reasons counted by [`record_connection_closed`], preregistered with 0 so that the first
/// increment is a visible rise.
const CLOSE_REASONS: [&str; 7] = ["tls", "no_request", "age", "drain", "address", "write_stall", "stream_stall"];

/// Listening socket with its optional TLS.
#[derive(Debug)]
pub struct Listener {
    /// Socket bound by [`bind`].
    pub listener: TcpListener,
    /// `None` for plain text.
    pub tls: Option<tls::Acceptor>,
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

/// Binds `address`; port 0 picks a free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `service` on `port` until `shutdown`, then drains requests in flight for at most
/// `drain_timeout_ms`.
pub async fn serve<S, B>(port: impl Into<Listener>, protocol: Protocol, service: S, config: &Config, shutdown: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    for reason in CLOSE_REASONS {
        metrics::counter!("palisade.connections.closed", "reason" => reason).increment(0);
    }
    let Listener { listener, tls } = port.into();
    let connections = Arc::new(Connections::new(protocol, config, tls));
    let opening = connections.clone();
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let per_ip_limit = match protocol {
        Protocol::Http => PerIpConnectionLimit::new(config),
        // gRPC callers are few services with many connections each.
        Protocol::Grpc => PerIpConnectionLimit::unlimited(),
    };
    // Without `TCP_NODELAY` the last packet of a response waits for the peer's delayed ACK.
    let mut incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEP_ALIVE));
    let accept = async move {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let (stream, peer) = accept(&mut incoming).await;
            if let Some(ip_permit) = per_ip_limit.try_acquire(peer.ip()) {
                opening.open(service.clone(), (stream, peer), (permit, ip_permit));
            }
        }
    };
    shutdown.run_until_cancelled(accept).await;
    connections.drain().await;
}

async fn accept(incoming: &mut TcpIncoming) -> (TcpStream, SocketAddr) {
    let mut logged = false;
    loop {
        match incoming.next().await.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into())) {
            // A stream without a peer address is already closed.
            Ok(stream) => {
                if let Ok(peer) = stream.peer_addr() {
                    return (stream, peer);
                }
            }
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
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

/// Counts a connection or stream closed by a limit. The counter is looked up each time, because
/// this is rare.
fn record_connection_closed(reason: &'static str) {
    metrics::counter!("palisade.connections.closed", "reason" => reason).increment(1);
}

//! Accepting and serving connections with every limit set: neither `axum::serve` nor tonic's server has them all.
//!
//! axum's has no timer, so no header timeout; tonic's has no limit on resets that the server itself causes, spins when file
//! descriptors run out, and waits for ever for a silent peer at shutdown.

use std::{
    error::Error as StdError,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

use super::Config;
use crate::{rate_limit::Peer, respond::Protocol, task};

const BACKLOG: u32 = 1_024;
/// Pause after an accept error that will not go away at once (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
const HTTP1_BUFFER_BYTES: usize = 32 * 1024;
const STREAMS: u32 = 256;
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// A peer that is silent for interval + timeout is gone.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Resets by the peer that we have not looked at yet: a gateway that cancels under load must not be cut.
const PENDING_RESETS: usize = 100;
/// Resets that the peer's frames made us send; `None`, tonic's default, is no limit at all.
const LOCAL_RESETS: usize = 1_024;

/// Binds `address`; port 0 takes a free one.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `service` on `listener` until `shutdown`, then lets requests in flight finish for at most the configured drain time.
pub async fn serve<S, B>(listener: TcpListener, protocol: Protocol, service: S, config: &Config, shutdown: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = std::convert::Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let builder = Arc::new(builder(protocol, config));
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(config.max_connections));
    let (drain, force) = (Arc::new(Word::default()), Arc::new(Word::default()));
    let first_request = Duration::from_millis(config.first_request_ms);
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (stream, peer) = accept(&listener).await;
            let (builder, service) = (builder.clone(), service.clone());
            let (drain, force) = (drain.clone(), force.clone());
            let connection = async move {
                let _place = place;
                tokio::select! {
                    () = serve_connection(&builder, (stream, peer), service, first_request, &drain) => {}
                    () = force.heard() => {}
                }
            };
            drop(task::spawn(connections.track_future(connection)));
        }
    };
    shutdown.run_until_cancelled(accept).await;
    drop(listener);
    drain.say();
    connections.close();
    if timeout(Duration::from_millis(config.drain_ms), connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "the drain time is over, what is still open is cut");
        force.say();
        connections.wait().await;
    }
}

/// A word to all connections. Waiting for it costs an atomic load when the connection's task runs: the future of a
/// [`CancellationToken`] takes a lock that all share each time, which under load is where the time went.
#[derive(Debug, Default)]
struct Word {
    said: AtomicBool,
    wake: CancellationToken,
}

impl Word {
    fn say(&self) {
        self.said.store(true, Ordering::Release);
        self.wake.cancel();
    }

    /// Ready once the word was said. To be polled by one and the same task.
    async fn heard(&self) {
        let mut wake = pin!(self.wake.cancelled());
        // The first poll leaves the task's waker behind; it need not be left again.
        let mut waiting = false;
        poll_fn(|cx| {
            if waiting && !self.said.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            waiting = true;
            wake.as_mut().poll(cx)
        })
        .await;
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, Peer) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it the last packet of an answer waits for the peer's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                return (stream, Peer(peer));
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted for the moment");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

async fn serve_connection<S, B>(
    builder: &auto::Builder<TokioExecutor>,
    (stream, peer): (TcpStream, Peer),
    service: S,
    first_request: Duration,
    drain: &Word,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = std::convert::Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let asked = asked.clone();
        service.map_request(move |mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(peer);
            request
        })
    };
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    // hyper has no timeout before it knows the version: silence or half a preface would stay for ever.
    let watchdog = sleep(first_request);
    tokio::pin!(watchdog);
    let told = drain.heard();
    tokio::pin!(told);
    let (mut watching, mut draining) = (true, false);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(error = &*error as &dyn StdError, "a connection ended with an error");
                }
                return;
            }
            () = watchdog.as_mut(), if watching && !asked.load(Ordering::Relaxed) => {
                watching = false;
                if !asked.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = told.as_mut(), if !draining => {
                draining = true;
                if !asked.load(Ordering::Relaxed) {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn builder(protocol: Protocol, config: &Config) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if protocol == Protocol::Grpc {
        builder = builder.http2_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.header_read_ms))
        .max_headers(MAX_HEADERS)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    builder
}

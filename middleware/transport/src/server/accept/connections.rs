//! Open connections of one port: timeouts, maximum age and graceful shutdown.

use std::{
    convert::Infallible,
    error::Error as StdError,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;
use tower::Service;

use super::{
    connection_service::ConnectionService,
    connection_state::ConnectionState,
    data_rate::MinimumRate,
    deadlines::{Deadlines, Due, Timeouts},
    flow_control_timeout::StreamExecutor,
    open_connections::OpenConnections,
    proxy_protocol, record_connection_closed,
    request_body::RequestBody,
    served_io::{LingerLimits, ServedIo},
    shutdown_signal::ShutdownSignal,
};
use crate::{
    server::Config,
    tls::{self, PeerCertificateNames},
};
use palisade_resilience::{
    caller::Peer, refusal_pause::ConnectionRefusals, respond::Protocol, streams::ConnectionDraining, task, trusted_proxies::TrustedProxies,
};

const MAX_HEADERS: usize = 64;
/// Maximum total size of the headers of a request, over either HTTP version.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Maximum resets by the peer that are not processed yet (rapid reset attack). High enough for a
/// gateway that cancels many calls under load.
const PENDING_RESETS: usize = 100;
/// Maximum resets caused by invalid frames of the peer; `None`, tonic's default, is no limit.
const LOCAL_RESETS: usize = 1_024;

/// Open connections of one port. [`serve`](super::serve) feeds it from a listener, tests from their
/// own streams.
#[derive(Debug)]
pub struct Connections {
    builder: auto::Builder<StreamExecutor>,
    tls: Option<tls::Acceptor>,
    protocol: Protocol,
    timeouts: Timeouts,
    drain_timeout: Duration,
    body_rate: MinimumRate,
    write_rate: MinimumRate,
    linger: LingerLimits,
    trusted_proxies: TrustedProxies,
    /// Timeout of the PROXY protocol header; `None` if the protocol is disabled.
    proxy_header_timeout: Option<Duration>,
    pub(super) table: Arc<OpenConnections>,
    drain: ShutdownSignal,
    abort: ShutdownSignal,
    open: TaskTracker,
}

/// Peer of a connection.
struct ConnectedPeer {
    address: Peer,
    names: Option<PeerCertificateNames>,
}

impl Connections {
    /// Creates an empty set for the port `listener`, its label in metrics.
    pub fn new(listener: &'static str, protocol: Protocol, config: &Config, tls: Option<tls::Acceptor>) -> Self {
        let first_request = Duration::from_millis(config.first_request_timeout_ms);
        Self {
            tls,
            protocol,
            builder: builder(protocol, config),
            timeouts: Timeouts::new(config),
            drain_timeout: Duration::from_millis(config.drain_timeout_ms),
            body_rate: config.data_rate.request(),
            write_rate: MinimumRate {
                bytes_per_second: config.data_rate.response_bytes_per_second,
                grace: Duration::from_millis(config.write_timeout_ms),
            },
            linger: config.linger.limits(),
            trusted_proxies: config.address_limit.proxies().unwrap_or_default(),
            proxy_header_timeout: config.proxy_protocol.then_some(first_request),
            table: OpenConnections::new(listener, protocol, config),
            drain: ShutdownSignal::default(),
            abort: ShutdownSignal::default(),
            open: TaskTracker::new(),
        }
    }

    /// Serves `service` on `io` from `peer` in a new task. `permit` is dropped when the connection
    /// is closed.
    pub fn open<S, B, I, P>(self: &Arc<Self>, service: S, (io, peer): (I, SocketAddr), permit: P)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        P: Unpin + Send + 'static,
    {
        let connections = self.clone();
        let connection = async move {
            tokio::select! {
                () = connections.handle(service, (io, peer), permit) => {}
                () = connections.abort.notified() => record_connection_closed("drain"),
            }
        };
        drop(task::spawn(self.open.track_future(connection)));
    }

    /// Drains all connections, and closes those still open after the drain timeout.
    pub async fn drain(&self) {
        self.drain.notify();
        self.open.close();
        if timeout(self.drain_timeout, self.open.wait()).await.is_err() {
            tracing::warn!(connections = self.open.len(), "drain timeout elapsed, closing open connections");
            self.abort.notify();
            self.open.wait().await;
        }
    }

    /// Serves one connection, from the PROXY protocol header to its end.
    async fn handle<S, B, I, P>(&self, service: S, (mut io, peer): (I, SocketAddr), permit: P)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        P: Unpin + Send + 'static,
    {
        let peer = match self.read_proxy_header(&mut io, peer).await {
            Ok(peer) => peer,
            Err(error) => {
                tracing::debug!(%error, %peer, "no PROXY protocol header");
                return record_connection_closed("proxy_protocol");
            }
        };
        let Some(entry) = self.table.register(peer.ip()).await else { return };
        let state = entry.state().clone();
        let accepted = tokio::select! {
            accepted = self.tls_handshake(io) => accepted,
            // Idle since it was opened.
            () = poll_fn(|cx| state.poll_evicted(cx)) => return,
        };
        let Some((io, names)) = accepted else { return };
        let io = ServedIo::new(io, state.clone(), self.write_rate, self.linger, (permit, entry));
        self.serve(service, io, &state, ConnectedPeer { address: Peer(peer), names }).await;
    }

    /// Returns the client address: that of the PROXY protocol header, if a trusted proxy must send
    /// one, else that of the connection.
    async fn read_proxy_header<I: AsyncRead + Unpin>(&self, io: &mut I, peer: SocketAddr) -> io::Result<SocketAddr> {
        match self.proxy_header_timeout {
            Some(limit) if self.trusted_proxies.contains(peer.ip()) => {
                let header = timeout(limit, proxy_protocol::read_header(io)).await;
                Ok(header.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??.unwrap_or(peer))
            }
            _ => Ok(peer),
        }
    }

    /// Performs the TLS handshake if the port has a certificate.
    async fn tls_handshake<I>(&self, io: I) -> Option<(tls::Stream<I>, Option<PeerCertificateNames>)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(tls) = &self.tls else { return Some((tls::Stream::Plain(io), None)) };
        match tls.accept(io).await {
            Ok(received) => Some(received),
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                record_connection_closed("tls");
                None
            }
        }
    }

    async fn serve<S, B, I, P>(&self, service: S, io: ServedIo<I, P>, state: &Arc<ConnectionState>, peer: ConnectedPeer)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        P: Unpin + Send + 'static,
    {
        let draining = ConnectionDraining::default();
        let service = ConnectionService {
            inner: service,
            connection: state.clone(),
            protocol: self.protocol,
            tls: self.tls.is_some(),
            peer: peer.address,
            names: peer.names,
            draining: draining.clone(),
            refusals: ConnectionRefusals::default(),
            trusted_proxies: self.trusted_proxies.clone(),
            body_rate: self.body_rate,
        };
        let io = TokioIo::new(io);
        match self.protocol {
            Protocol::Http => self.drive(self.builder.serve_connection_with_upgrades(io, service), state, &draining).await,
            // A connection with upgrades would accept HTTP/1.
            Protocol::Grpc => self.drive(self.builder.serve_connection(io, service), state, &draining).await,
        }
    }

    /// Polls `connection` to its end or a deadline.
    async fn drive(
        &self,
        connection: impl GracefulConnection<Error = Box<dyn StdError + Send + Sync>>,
        state: &Arc<ConnectionState>,
        draining: &ConnectionDraining,
    ) {
        let mut connection = pin!(connection);
        let mut deadlines = Deadlines::new(self.timeouts.clone(), Instant::now());
        let mut timer = pin!(sleep_until(deadlines.next()));
        let (mut drain_signal, mut port_drains, mut evicted) = (pin!(self.drain.notified()), false, false);
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    match result {
                        Err(error) => tracing::debug!(error = &*error as &dyn StdError, "connection error"),
                        Ok(()) if state.is_upgraded() => self.await_upgraded(state, draining).await,
                        Ok(()) => {}
                    }
                    return;
                }
                event = poll_fn(|cx| poll_event(state, &mut deadlines, evicted, cx)) => match event {
                    Event::Watch => {}
                    Event::Evicted => {
                        evicted = true;
                        deadlines.evicted(Instant::now());
                        connection.as_mut().graceful_shutdown();
                        draining.notify();
                    }
                },
                () = timer.as_mut() => match deadlines.due(state, Instant::now()) {
                    Due::Nothing => {}
                    Due::Drain => {
                        connection.as_mut().graceful_shutdown();
                        draining.notify();
                    }
                    Due::Close(Some(reason)) => return record_connection_closed(reason),
                    Due::Close(None) => return,
                },
                () = drain_signal.as_mut(), if !port_drains => {
                    port_drains = true;
                    deadlines.port_drains(Instant::now());
                    if !state.has_request() {
                        if state.head_at().is_none() {
                            return;
                        }
                        // The first request may be on its way: an HTTP/2 client learns from the
                        // GOAWAY that it was not handled.
                        deadlines.evicted(Instant::now());
                    }
                    state.never_linger();
                    connection.as_mut().graceful_shutdown();
                    draining.notify();
                }
            }
            timer.as_mut().reset(deadlines.next());
        }
    }

    /// Waits until a connection that speaks another protocol is closed. Its handler is notified
    /// when the port drains.
    async fn await_upgraded(&self, state: &Arc<ConnectionState>, draining: &ConnectionDraining) {
        let mut closed = pin!(poll_fn(|cx| state.poll_io_closed(cx)));
        tokio::select! {
            () = closed.as_mut() => {}
            () = self.drain.notified() => {
                draining.notify();
                closed.await;
            }
        }
    }
}

/// Event of a connection beside its I/O and its timer.
enum Event {
    /// The reader is watched from now on.
    Watch,
    Evicted,
}

fn poll_event(state: &ConnectionState, deadlines: &mut Deadlines, evicted: bool, cx: &mut Context<'_>) -> Poll<Event> {
    // Also registers the task for the watch.
    if state.poll_evicted(cx).is_ready() && !evicted {
        return Poll::Ready(Event::Evicted);
    }
    if deadlines.watch(state, Instant::now) { Poll::Ready(Event::Watch) } else { Poll::Pending }
}

fn builder(protocol: Protocol, config: &Config) -> auto::Builder<StreamExecutor> {
    let mut builder = auto::Builder::new(StreamExecutor(Duration::from_millis(config.write_timeout_ms)));
    if protocol == Protocol::Grpc {
        builder = builder.http2_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        // A bound for both times, which `Deadlines` tells apart.
        .header_read_timeout(Duration::from_millis(config.header_read_timeout_ms.saturating_add(config.idle_timeout_ms)))
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(config.http2.keep_alive_ms))
        .keep_alive_timeout(Duration::from_millis(config.http2.keep_alive_timeout_ms))
        .max_concurrent_streams(config.http2.max_streams)
        .initial_stream_window_size(config.http2.stream_window_bytes)
        .initial_connection_window_size(config.http2.connection_window_bytes)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_send_buf_size(config.http2.send_buffer_bytes as usize);
    builder
}

//! Open connections of one port: timeouts, maximum age and graceful shutdown.

use std::{
    convert::Infallible,
    error::Error as StdError,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use super::{
    flow_control_timeout::{ChunkedBody, StreamExecutor},
    record_connection_closed,
    shutdown_signal::ShutdownSignal,
    write_timeout::WriteTimeout,
};
use crate::{
    server::Config,
    tls::{self, PeerCertificateNames},
};
use palisade_resilience::{jitter, rate_limit::Peer, respond::Protocol, streams::ConnectionDraining, task};

/// HSTS for two years, as required by the browsers' preload lists.
const STRICT_TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");
const MAX_HEADERS: usize = 64;
/// Maximum total size of the headers of a request, over either HTTP version.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Maximum resets by the peer that are not processed yet (rapid reset attack). High enough for a
/// gateway that cancels many calls under load.
const PENDING_RESETS: usize = 100;
/// Maximum resets caused by invalid frames of the peer; `None`, tonic's default, is no limit.
const LOCAL_RESETS: usize = 1_024;
/// Jitter of the connection age, so that connections opened together do not close together.
const AGE_JITTER: f64 = 0.1;

/// Open connections of one port. [`serve`](super::serve) feeds it from a listener, tests from their
/// own streams.
#[derive(Debug)]
pub struct Connections {
    builder: auto::Builder<StreamExecutor>,
    tls: Option<tls::Acceptor>,
    /// Whether responses carry HSTS (HTTP over TLS).
    strict_transport: bool,
    first_request_timeout: Duration,
    max_age: Option<Duration>,
    drain_timeout: Duration,
    /// Grace period of a connection past its maximum age: the maximum duration of any request.
    max_age_grace: Duration,
    write_timeout: Duration,
    drain: ShutdownSignal,
    abort: ShutdownSignal,
    open: TaskTracker,
}

/// Next timeout of a connection.
#[derive(Debug, Clone, Copy)]
enum NextTimeout {
    FirstRequest,
    MaxAge,
    AgeGrace,
}

impl Connections {
    /// Creates an empty set.
    pub fn new(protocol: Protocol, config: &Config, tls: Option<tls::Acceptor>) -> Self {
        Self {
            strict_transport: tls.is_some() && protocol == Protocol::Http,
            tls,
            builder: builder(protocol, config),
            first_request_timeout: Duration::from_millis(config.first_request_timeout_ms),
            max_age: (config.max_connection_age_ms > 0).then(|| Duration::from_millis(config.max_connection_age_ms)),
            drain_timeout: Duration::from_millis(config.drain_timeout_ms),
            max_age_grace: Duration::from_millis(config.drain_timeout_ms.max(config.max_deadline_ms)),
            write_timeout: Duration::from_millis(config.write_timeout_ms),
            drain: ShutdownSignal::default(),
            abort: ShutdownSignal::default(),
            open: TaskTracker::new(),
        }
    }

    /// Serves `service` on `io` from `peer` in a new task. `permit` is dropped when the connection
    /// ends.
    pub fn open<S, B, I, P>(self: &Arc<Self>, service: S, (io, peer): (I, SocketAddr), permit: P)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        P: Send + 'static,
    {
        let connections = self.clone();
        let connection = async move {
            let _place = permit;
            let served = async {
                if let Some((io, names)) = connections.tls_handshake(io).await {
                    connections.serve(service, (io, Peer(peer), names)).await;
                }
            };
            tokio::select! {
                () = served => {}
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

    async fn serve<S, B, I>(&self, service: S, (io, peer, names): (I, Peer, Option<PeerCertificateNames>))
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let has_request = Arc::new(AtomicBool::new(false));
        let connection_draining = ConnectionDraining::default();
        let service = {
            let (has_request, connection_draining) = (has_request.clone(), connection_draining.clone());
            let service = service.map_request(move |mut request: Request<Incoming>| {
                has_request.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(peer);
                if let Some(names) = &names {
                    request.extensions_mut().insert(names.clone());
                }
                request.extensions_mut().insert(connection_draining.clone());
                request
            });
            let strict_transport = self.strict_transport;
            service.map_response(move |mut response| {
                if strict_transport {
                    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
                }
                response.map(ChunkedBody::new)
            })
        };
        let io = TokioIo::new(WriteTimeout::new(io, self.write_timeout));
        let mut connection = pin!(self.builder.serve_connection(io, TowerToHyperService::new(service)));
        let opened = Instant::now();
        // hyper has no timeout before it knows the HTTP version: silence or half a preface would
        // keep the connection open forever.
        let (mut next_timeout, mut timer) = (Some(NextTimeout::FirstRequest), pin!(sleep(self.first_request_timeout)));
        let (mut drain_signal, mut draining) = (pin!(self.drain.notified()), false);
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(error = &*error as &dyn StdError, "connection error");
                    }
                    return;
                }
                () = timer.as_mut(), if next_timeout.is_some() => next_timeout = match next_timeout {
                    Some(NextTimeout::FirstRequest) if !has_request.load(Ordering::Relaxed) => return record_connection_closed("no_request"),
                    Some(NextTimeout::FirstRequest) => self.max_age.map(|age| {
                        timer.as_mut().reset(opened + jitter::jittered(age, AGE_JITTER, jitter::random_unit));
                        NextTimeout::MaxAge
                    }),
                    Some(NextTimeout::MaxAge) => {
                        connection.as_mut().graceful_shutdown();
                        connection_draining.notify();
                        timer.as_mut().reset(Instant::now() + self.max_age_grace);
                        Some(NextTimeout::AgeGrace)
                    }
                    Some(NextTimeout::AgeGrace) => return record_connection_closed("age"),
                    None => None,
                },
                () = drain_signal.as_mut(), if !draining => {
                    (draining, next_timeout) = (true, None);
                    if !has_request.load(Ordering::Relaxed) {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    connection_draining.notify();
                }
            }
        }
    }
}

fn builder(protocol: Protocol, config: &Config) -> auto::Builder<StreamExecutor> {
    let mut builder = auto::Builder::new(StreamExecutor(Duration::from_millis(config.write_timeout_ms)));
    if protocol == Protocol::Grpc {
        builder = builder.http2_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.header_read_timeout_ms))
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

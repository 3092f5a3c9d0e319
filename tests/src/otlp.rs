//! In-memory trace collector: OTLP over gRPC or HTTP, as received by Jaeger or an OpenTelemetry
//! Collector.

pub mod catalogue;
pub mod span;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::post,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Request, Response, Status,
    service::Routes,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use self::span::{Span, Trace};
use crate::{eventually, servers::free_port};

/// Export delay after the end of a span, milliseconds.
const EXPORT_DELAY_MS: &str = "50";
/// Media type of OTLP over HTTP.
const PROTOBUF: &str = "application/x-protobuf";

/// Protocol that a collector accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with binary Protobuf.
    Http,
}

/// Running collector. Dropping it closes its port.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    protocol: Protocol,
    /// Certificate and key, if the port uses TLS.
    identity: Option<Identity>,
    store: SpanStore,
    // Separate runtime: its shutdown closes every connection, like a killed process.
    runtime: Option<Runtime>,
}

#[derive(Debug, Clone, Default)]
struct SpanStore(Arc<Mutex<Vec<Span>>>);

impl SpanStore {
    fn insert(&self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse {
        let spans = request.resource_spans.into_iter().flat_map(Span::from_resource);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        ExportTraceServiceResponse::default()
    }
}

#[tonic::async_trait]
impl TraceService for SpanStore {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(self.insert(request.into_inner())))
    }
}

/// `POST /v1/traces` of OTLP over HTTP.
async fn export(State(store): State<SpanStore>, headers: HeaderMap, body: Bytes) -> Result<impl IntoResponse, StatusCode> {
    if headers.get(CONTENT_TYPE).is_none_or(|media_type| media_type != PROTOBUF) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(([(CONTENT_TYPE, PROTOBUF)], store.insert(request).encode_to_vec()))
}

impl Collector {
    /// Starts a collector of gRPC on a port that it keeps across restarts.
    pub fn start() -> Self {
        Self::start_with(Protocol::Grpc)
    }

    /// As [`Self::start`], for one protocol.
    pub fn start_with(protocol: Protocol) -> Self {
        Self::new(protocol, None)
    }

    /// As [`Self::start_with`], over TLS with this certificate and key in PEM.
    pub fn start_tls(protocol: Protocol, certificate: &Path, key: &Path) -> Self {
        let read = |path: &Path| fs::read(path).expect("certificates of the test can be read");
        Self::new(protocol, Some(Identity::from_pem(read(certificate), read(key))))
    }

    fn new(protocol: Protocol, identity: Option<Identity>) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let store = SpanStore::default();
        let runtime = Some(serve(address, protocol, identity.clone(), store.clone()));
        Self { address, protocol, identity, store, runtime }
    }

    /// Configures a service to export all its spans to this collector without delay.
    pub fn configure(&self, command: &mut Command) {
        let scheme = if self.identity.is_some() { "https" } else { "http" };
        command.env("PALISADE_TELEMETRY__OTLP_ENDPOINT", format!("{scheme}://{}", self.address));
        if self.protocol == Protocol::Http {
            command.env("PALISADE_TELEMETRY__OTLP_PROTOCOL", "http/protobuf");
        }
        command.env("PALISADE_TELEMETRY__SAMPLE_RATIO", "1").env("OTEL_BSP_SCHEDULE_DELAY", EXPORT_DELAY_MS);
    }

    /// Closes the port and every connection.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Listens again on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.runtime = Some(serve(self.address, self.protocol, self.identity.clone(), self.store.clone()));
    }

    /// Returns all received spans.
    pub fn spans(&self) -> Vec<Span> {
        self.store.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the trace satisfies `is_complete` and returns it. Store spans are left out:
    /// their number varies.
    pub async fn trace(&self, id: &str, is_complete: impl Fn(&Trace) -> bool) -> Trace {
        eventually(async || {
            let spans = self.spans().into_iter().filter(|span| span.trace_id == id && !span.attributes.contains_key("db.system.name"));
            Some(Trace(spans.collect())).filter(&is_complete)
        })
        .await
    }

    /// Waits for the first span that satisfies `matches`.
    pub async fn span(&self, matches: impl Fn(&Span) -> bool) -> Span {
        eventually(async || self.spans().into_iter().find(|span| matches(span))).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(address: SocketAddr, protocol: Protocol, identity: Option<Identity>, store: SpanStore) -> Runtime {
    let listener = TcpListener::bind(address).expect("the port is free");
    listener.set_nonblocking(true).expect("non-blocking mode is supported");
    let routes = match protocol {
        Protocol::Grpc => Routes::new(TraceServiceServer::new(store)),
        Protocol::Http => Router::new().route("/v1/traces", post(export)).with_state(store).into(),
    };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime can be built");
    runtime.spawn(async move {
        let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).expect("listener is non-blocking"));
        let server = Server::builder().accept_http1(protocol == Protocol::Http);
        let server = match identity {
            Some(identity) => server.tls_config(ServerTlsConfig::new().identity(identity)),
            None => Ok(server),
        };
        server.expect("the certificate fits its key").add_routes(routes).serve_with_incoming(incoming).await
    });
    runtime
}

//! In-memory trace collector: OTLP over gRPC, as received by Jaeger or an OpenTelemetry Collector.

pub mod catalogue;
pub mod span;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Request, Response, Status,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use self::span::{Span, Trace};
use crate::{eventually, servers::free_port};

/// Export delay after the end of a span, milliseconds.
const EXPORT_DELAY_MS: &str = "50";

/// Running collector. Dropping it closes its port.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    /// Certificate and key, if the port uses TLS.
    identity: Option<Identity>,
    store: SpanStore,
    // Separate runtime: its shutdown closes every connection, like a killed process.
    runtime: Option<Runtime>,
}

#[derive(Debug, Clone, Default)]
struct SpanStore(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for SpanStore {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(Span::from_resource);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts a collector on a port that it keeps across restarts.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// As [`Self::start`], over TLS with this certificate and key in PEM.
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        let read = |path: &Path| fs::read(path).expect("certificates of the test can be read");
        Self::start_with(Some(Identity::from_pem(read(certificate), read(key))))
    }

    fn start_with(identity: Option<Identity>) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let store = SpanStore::default();
        Self { address, runtime: Some(serve(address, identity.clone(), store.clone())), identity, store }
    }

    /// Configures a service to export all its spans to this collector without delay.
    pub fn configure(&self, command: &mut Command) {
        let scheme = if self.identity.is_some() { "https" } else { "http" };
        command.env("PALISADE_TELEMETRY__OTLP_ENDPOINT", format!("{scheme}://{}", self.address));
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
        self.runtime = Some(serve(self.address, self.identity.clone(), self.store.clone()));
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

fn serve(address: SocketAddr, identity: Option<Identity>, store: SpanStore) -> Runtime {
    let listener = TcpListener::bind(address).expect("the port is free");
    listener.set_nonblocking(true).expect("non-blocking mode is supported");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime can be built");
    runtime.spawn(async move {
        let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).expect("listener is non-blocking"));
        let server = match identity {
            Some(identity) => Server::builder().tls_config(ServerTlsConfig::new().identity(identity)),
            None => Ok(Server::builder()),
        };
        server.expect("the certificate fits its key").add_service(TraceServiceServer::new(store)).serve_with_incoming(incoming).await
    });
    runtime
}

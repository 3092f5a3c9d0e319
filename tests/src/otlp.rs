//! A trace collector that keeps what real processes export to it: OTLP over gRPC, as Jaeger or an OpenTelemetry collector takes it.

pub mod catalogue;
pub mod span;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
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
    transport::{Server, server::TcpIncoming},
};

use self::span::{Span, Trace};
use crate::{eventually, servers::free_port};

/// How soon after its end a span is exported, in milliseconds.
const EXPORT_EVERY_MS: &str = "50";

/// A running collector. Dropping it closes its port.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    kept: Kept,
    // A runtime of its own: ending it cuts every connection, as killing a process would.
    serving: Option<Runtime>,
}

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(Span::all_of);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a port that it keeps when it is started again.
    pub fn start() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let kept = Kept::default();
        Self { address, serving: Some(serve(address, kept.clone())), kept }
    }

    /// Makes a service export all its spans here, soon.
    pub fn observe(&self, command: &mut Command) {
        command.env("PALISADE_TELEMETRY__OTLP_ENDPOINT", format!("http://{}", self.address));
        command.env("PALISADE_TELEMETRY__SAMPLE_RATIO", "1").env("OTEL_BSP_SCHEDULE_DELAY", EXPORT_EVERY_MS);
    }

    /// Closes its port and every connection to it.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_background();
        }
    }

    /// Listens again.
    pub fn restart(&mut self) {
        self.kill();
        self.serving = Some(serve(self.address, self.kept.clone()));
    }

    /// Every span that has come so far.
    pub fn spans(&self) -> Vec<Span> {
        self.kept.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of a trace, once they are as many as `enough` wants; not those of stores, whose number is their own business.
    pub async fn trace(&self, id: &str, enough: impl Fn(&Trace) -> bool) -> Trace {
        eventually(async || {
            let spans = self.spans().into_iter().filter(|span| span.trace_id == id && !span.attributes.contains_key("db.system.name"));
            Some(Trace(spans.collect())).filter(&enough)
        })
        .await
    }

    /// The first span of which `matches` holds.
    pub async fn span(&self, matches: impl Fn(&Span) -> bool) -> Span {
        eventually(async || self.spans().into_iter().find(|span| matches(span))).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(address: SocketAddr, kept: Kept) -> Runtime {
    let listener = TcpListener::bind(address).expect("the port is free");
    listener.set_nonblocking(true).expect("a listener can be made so");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime can be built");
    runtime.spawn(async move {
        let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).expect("it does not block"));
        Server::builder().add_service(TraceServiceServer::new(kept)).serve_with_incoming(incoming).await
    });
    runtime
}

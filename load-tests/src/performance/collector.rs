//! Trace collector that decodes and discards every span, in its own process so that its CPU time is
//! not counted.

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

struct NullCollector;

#[tonic::async_trait]
impl TraceService for NullCollector {
    async fn export(&self, _: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Listens on a free port, prints `listening collector <url>`, and runs forever.
#[expect(clippy::print_stdout, reason = "the parent process waits for this line")]
pub async fn collect() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening collector http://{}", listener.local_addr()?);
    Server::builder().add_service(TraceServiceServer::new(NullCollector)).serve_with_incoming(TcpIncoming::from(listener)).await?;
    Ok(())
}

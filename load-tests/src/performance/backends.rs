//! Backends of the measurement, each in its own process: a trace collector, and a service that
//! reads from `MongoDB` as the baseline for product reads.

use std::time::Duration;

use mongodb::{
    Client, Collection,
    bson::doc,
    options::{ClientOptions, ReplaceOptions},
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    codegen::BoxStream,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_server::{Health, HealthServer},
};

const ID: &str = "6f0a1c9e-0000-4000-8000-000000000000";

/// Collector that decodes and discards every span.
struct NullCollector;

/// Document of the size of a product.
#[derive(Debug, Serialize, Deserialize)]
struct Product {
    #[serde(rename = "_id")]
    id: String,
    name: String,
    description: String,
    category: String,
    price_cents: i64,
    available: i64,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

/// Bare tonic service whose calls are one `find_one` of the `MongoDB` driver.
struct BaselineReader(Collection<Product>);

#[tonic::async_trait]
impl TraceService for NullCollector {
    async fn export(&self, _: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl Health for BaselineReader {
    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let found = self.0.find_one(doc! { "_id": ID }).max_time(Duration::from_secs(1)).await;
        let product = found.map_err(|error| Status::unavailable(error.to_string()))?;
        let product = product.ok_or_else(|| Status::not_found("document not found"))?;
        Ok(Response::new(HealthCheckResponse { status: i32::from(product.version > 0) }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not part of the measurement"))
    }
}

/// Runs the collector on a free port forever, after printing `listening collector <url>`.
#[expect(clippy::print_stdout, reason = "the parent process waits for this line")]
pub async fn run_collector() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening collector http://{}", listener.local_addr()?);
    Server::builder().add_service(TraceServiceServer::new(NullCollector)).serve_with_incoming(TcpIncoming::from(listener)).await?;
    Ok(())
}

/// Runs the baseline service over the database of `url` on a free port forever, after printing its
/// URL.
#[expect(clippy::print_stdout, reason = "the parent process waits for this line")]
pub async fn run_baseline_reader(url: &str) -> anyhow::Result<()> {
    let mut options = ClientOptions::parse(url).await?;
    options.max_pool_size = Some(50);
    let client = Client::with_options(options)?;
    let products: Collection<Product> = client.default_database().unwrap_or_else(|| client.database("reader")).collection("products");
    let product = Product {
        id: ID.to_owned(),
        name: "Lamp".to_owned(),
        description: "To be measured.".to_owned(),
        category: "load".to_owned(),
        price_cents: 1_999,
        available: 1_000_000,
        version: 1,
        created_at: 1_700_000_000_000,
        updated_at: 1_700_000_000_000,
    };
    products.replace_one(doc! { "_id": ID }, &product).with_options(ReplaceOptions::builder().upsert(true).build()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder().add_service(HealthServer::new(BaselineReader(products))).serve_with_incoming(incoming).await?;
    Ok(())
}

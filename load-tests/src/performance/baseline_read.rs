//! Baseline for product reads: a bare tonic service whose calls are one `find_one` of the MongoDB
//! driver.

use std::time::Duration;

use mongodb::{
    Client, Collection,
    bson::doc,
    options::{ClientOptions, ReplaceOptions},
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

/// Document of the size of a product.
#[derive(Debug, Serialize, Deserialize)]
struct Lamp {
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

struct Reader(Collection<Lamp>);

#[tonic::async_trait]
impl Health for Reader {
    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let found = self.0.find_one(doc! { "_id": ID }).max_time(Duration::from_secs(1)).await;
        let lamp = found.map_err(|error| Status::unavailable(error.to_string()))?.ok_or_else(|| Status::not_found("document not found"))?;
        let status = i32::from(lamp.version > 0);
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not part of the measurement"))
    }
}

/// Listens on a free port, prints its URL, and serves reads from the database of `url` forever.
#[expect(clippy::print_stdout, reason = "the parent process waits for this line")]
pub async fn read(url: &str) -> anyhow::Result<()> {
    let mut options = ClientOptions::parse(url).await?;
    options.max_pool_size = Some(50);
    let client = Client::with_options(options)?;
    let lamps: Collection<Lamp> = client.default_database().unwrap_or_else(|| client.database("reader")).collection("lamps");
    let lamp = Lamp {
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
    lamps.replace_one(doc! { "_id": ID }, &lamp).with_options(ReplaceOptions::builder().upsert(true).build()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder().add_service(HealthServer::new(Reader(lamps))).serve_with_incoming(incoming).await?;
    Ok(())
}

//! Example: a tonic service behind the server stack, called through the client stack.
//!
//! `cargo run -p palisade-middleware --example grpc_service -- 127.0.0.1:5000` serves it, calls it
//! and keeps serving; without an address it uses a free port. It implements `grpc.health.v1`, whose
//! generated code is available without a build step.

use std::{error::Error, io::Write, net::SocketAddr, sync::Arc};

use palisade_middleware::{
    auth::{CredentialsLayer, InternalTokens, Issuer, TokenPolicy, Verifier, jwks::JwksSource, keys::SigningKey},
    client,
    clock::SystemClock,
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    rejection::{Rejection, reasons},
    respond::Protocol,
    server::{self, accept},
    task,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Method table. A method without an entry, such as `Watch`, is denied.
static METHODS: [Method; 1] = [Method::grpc(CHECK, Access::Service { scope: "doctor:ask", callers: &["patient"] })];

/// Service implementation.
struct Doctor;

#[tonic::async_trait]
impl Health for Doctor {
    type WatchStream = tonic::codegen::BoxStream<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if request.get_ref().service != "heart" {
            return Err(Rejection::new(&reasons::NOT_FOUND, "unknown organ").into());
        }
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Rejection::new(&reasons::UNIMPLEMENTED, "Watch is not implemented").into())
    }
}

/// Serves until `shutdown` to the service `patient`, which signs its tokens with `key`.
pub(crate) async fn serve(listener: TcpListener, key: &SigningKey, shutdown: CancellationToken) -> Result<(), Box<dyn Error>> {
    let issuer = Issuer::of_service("patient", "doctor", JwksSource::fixed(vec![key.trusted()?]));
    let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(SystemClock))?);
    let methods = Arc::new(MethodTable::new(&[&METHODS])?);
    let config = server::Config::default();
    let router = Routes::new(HealthServer::new(Doctor)).prepare().into_axum_router();
    let service = server::stack(Protocol::Grpc, router, methods, verifier, Faults::disabled(), &config);
    accept::serve(listener, Protocol::Grpc, service, &config, shutdown).await;
    Ok(())
}

/// Generated client over the client stack, which adds a fresh internal token to every attempt.
pub(crate) fn connect(address: SocketAddr, key: &SigningKey) -> Result<HealthClient<client::Client>, client::InvalidConfig> {
    let tokens = InternalTokens::new("patient", TokenPolicy::Service(&["doctor:ask"]), key.clone(), Arc::new(SystemClock));
    let credentials = CredentialsLayer::new(Arc::new(tokens), "doctor");
    let config = client::Config::at(format!("http://{address}"));
    let idempotent = [CHECK].into_iter().collect();
    Ok(HealthClient::new(client::connect("doctor", &config, idempotent, credentials)?))
}

/// Calls `Check` once.
pub(crate) async fn check(client: &mut HealthClient<client::Client>, organ: &str) -> Result<ServingStatus, Status> {
    let answer = client.check(HealthCheckRequest { service: organ.to_owned() }).await?;
    Ok(answer.into_inner().status())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = accept::bind(address.parse()?)?;
    let address = listener.local_addr()?;
    let key = SigningKey::from_pem(&SigningKey::generate_pem()?)?;
    let shutdown = CancellationToken::new();
    let serving = task::spawn({
        let (key, shutdown) = (key.clone(), shutdown.clone());
        async move { serve(listener, &key, shutdown).await.map_err(|error| error.to_string()) }
    });
    let mut client = connect(address, &key)?;
    for organ in ["heart", "spoon"] {
        match check(&mut client, organ).await {
            Ok(status) => writeln!(std::io::stdout(), "{organ}: {status:?}")?,
            Err(error) => writeln!(std::io::stdout(), "{organ}: {:?}, {}", error.code(), error.message())?,
        }
    }
    writeln!(std::io::stdout(), "serving http://{address} until Ctrl-C")?;
    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    Ok(serving.await??)
}

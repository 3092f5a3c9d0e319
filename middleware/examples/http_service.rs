//! Example: an axum service behind the server stack.
//!
//! `cargo run -p palisade-middleware --example http_service -- 127.0.0.1:3000` serves it and prints
//! requests to try; without an address it uses a free port.

use std::{error::Error, io::Write, sync::Arc, time::Duration};

use axum::{Router, extract::Path, routing::get};
use palisade_middleware::{
    auth::{Issuer, UserToken, Verifier, jwks::JwksSource, keys::SigningKey, mint_user_token},
    clock::{Clock, SystemClock},
    context,
    fault_injection::Faults,
    method_table::{Access, Method, MethodTable},
    rejection::{Rejection, reasons},
    respond::Protocol,
    server::{self, accept},
    task,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Method table. A route without an entry is denied.
static METHODS: [Method; 2] =
    [Method::http("GET", "/hello", Access::Public), Method::http("GET", "/things/{id}", Access::Scope("things:read"))];

/// Router of the service. It uses the middleware only for the caller and for rejections.
fn router() -> Router {
    Router::new().route("/hello", get(async || "hello\n")).route("/things/{id}", get(thing))
}

async fn thing(Path(id): Path<u32>) -> Result<String, Rejection> {
    let caller = context::current_principal()?;
    if id != 7 {
        return Err(Rejection::new(&reasons::NOT_FOUND, "unknown thing"));
    }
    Ok(format!("thing 7, for {}\n", caller.subject))
}

/// Serves until `shutdown` to callers with a token signed by `key`.
pub(crate) async fn serve(listener: TcpListener, key: &SigningKey, shutdown: CancellationToken) -> Result<(), Box<dyn Error>> {
    let issuer = Issuer::of_users("example", "things", JwksSource::fixed(vec![key.trusted()?]));
    let verifier = Arc::new(Verifier::new(vec![issuer], Arc::new(SystemClock))?);
    let methods = Arc::new(MethodTable::new(&[&METHODS])?);
    let config = server::Config::default();
    let service = server::stack(Protocol::Http, router(), methods, verifier, Faults::disabled(), &config);
    accept::serve(listener, Protocol::Http, service, &config, shutdown).await;
    Ok(())
}

/// Issues a token, in place of an identity provider.
pub(crate) fn token(key: &SigningKey, subject: &str) -> Result<String, Box<dyn Error>> {
    let token = UserToken {
        subject: subject.to_owned(),
        scope: "things:read".to_owned(),
        issuer: "example".to_owned(),
        audience: "things".to_owned(),
        lifetime: Duration::from_hours(1),
    };
    Ok(mint_user_token(&token, key, SystemClock.now().unix_timestamp())?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = accept::bind(address.parse()?)?;
    let key = SigningKey::from_pem(&SigningKey::generate_pem()?)?;
    let (address, token) = (listener.local_addr()?, token(&key, "alice")?);
    writeln!(std::io::stdout(), "curl -i http://{address}/hello\ncurl -i -H 'authorization: Bearer {token}' http://{address}/things/7")?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    drop(task::spawn(async move { tokio::signal::ctrl_c().await.map(|()| stop.cancel()) }));
    serve(listener, &key, shutdown).await
}

//! Calls of the admin routes of a service, within the process.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use palisade_middleware::{
    admin::AdminPorts,
    rejection::{Rejection, reasons},
};
use serde_json::Value;
use tower::ServiceExt;

/// Maximum size of a response, bytes.
const MAX_BODY: usize = 256 * 1024;

/// Sends `request` to the route `path` of `service`.
pub(super) async fn send(ports: &AdminPorts, service: &str, path: &str, mut request: Request) -> Result<Response, Rejection> {
    let routes = ports.routes(service).ok_or_else(|| Rejection::new(&reasons::NOT_FOUND, "this process has no such service"))?;
    *request.uri_mut() = path.parse().map_err(|_| Rejection::new(&reasons::NOT_FOUND, "unknown path"))?;
    // The router would add its path parameters to those of the console.
    request.extensions_mut().clear();
    Ok(routes.oneshot(request).await.unwrap_or_else(|never| match never {}))
}

/// Returns the JSON at `path` of `service`. `None` if the service has no such route.
pub(super) async fn read(ports: &AdminPorts, service: &str, path: &str) -> Option<Value> {
    let response = send(ports, service, path, Request::new(Body::empty())).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    serde_json::from_slice(&to_bytes(response.into_body(), MAX_BODY).await.ok()?).ok()
}

//! Console: a page on the admin port of the gateway that shows what Prometheus, Grafana and Jaeger
//! show of a deployment, from the same metrics, spans and log records, and switches for faults and
//! breakers.

mod admin_calls;
mod exposition;
mod feed;
mod page;
mod snapshot;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    response::Response,
    routing::{any, get},
};
use palisade_middleware::{
    admin::AdminPorts,
    clock::Clock,
    process::Process,
    rejection::{Rejection, reasons},
    telemetry::{
        Telemetry,
        recent::{RecentTraces, TraceView},
    },
};
use tokio::sync::Semaphore;

/// Maximum number of open pages.
const MAX_READERS: usize = 8;

/// Sources of the console.
#[derive(Debug)]
struct Console {
    clock: Arc<dyn Clock>,
    services: &'static [&'static str],
    telemetry: Telemetry,
    traces: RecentTraces,
    ports: AdminPorts,
    readers: Arc<Semaphore>,
}

/// Returns the routes of the console of these services. `None` if the process keeps no traces.
pub(crate) fn routes(process: &Process, services: &'static [&'static str]) -> Option<Router> {
    let console = Console {
        clock: process.clock.clone(),
        services,
        telemetry: process.telemetry.clone(),
        traces: process.telemetry.recent_traces()?.clone(),
        ports: process.admin_ports.clone(),
        readers: Arc::new(Semaphore::new(MAX_READERS)),
    };
    let routes = Router::new()
        .route("/console/events", get(feed::events))
        .route("/console/traces/{id}", get(trace))
        .route("/console/services/{service}/faults", any(forward))
        .route("/console/services/{service}/breakers/{target}", any(forward))
        .with_state(Arc::new(console));
    Some(routes.merge(page::routes()))
}

async fn trace(State(console): State<Arc<Console>>, Path(id): Path<String>) -> Result<Json<TraceView>, Rejection> {
    console.traces.find(&id).map(Json).ok_or_else(|| Rejection::new(&reasons::NOT_FOUND, "the trace is not in memory"))
}

/// Forwards a request to the admin routes of a service of this process. A page cannot send it to
/// their own port, which is another origin.
async fn forward(State(console): State<Arc<Console>>, request: Request) -> Result<Response, Rejection> {
    let path = request.uri().path().strip_prefix("/console/services/").and_then(|path| path.split_once('/'));
    let (service, path) = path.ok_or_else(|| Rejection::new(&reasons::NOT_FOUND, "unknown path"))?;
    let (service, path) = (service.to_owned(), format!("/{path}"));
    admin_calls::send(&console.ports, &service, &path, request).await
}

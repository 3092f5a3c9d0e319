//! What every gRPC port has beside its own service: health, reflection, and a guard against what is not gRPC.

use std::{collections::HashSet, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{GRPC_INFRASTRUCTURE, unary_request_body::UnaryRequestBody};
use crate::{
    health::Readiness,
    method_table::{MethodTableError, MethodTable},
    task,
};

/// The contract of a port cannot be served as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors are not a `FileDescriptorSet`.
    #[error("the file descriptor set is unreadable")]
    Descriptors(#[from] prost::DecodeError),
    /// Reflection refuses the descriptors.
    #[error("the file descriptor set cannot be reflected")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A method without an entry, or the reverse.
    #[error(transparent)]
    Incomplete(#[from] MethodTableError),
}

/// The methods (`/package.Service/Method`) that `service` has by its descriptors, and whether each takes exactly one message.
fn methods(descriptors: &FileDescriptorSet, service: &str) -> Vec<(String, bool)> {
    let mut methods = Vec::new();
    for file in &descriptors.file {
        for candidate in &file.service {
            let name = format!("{}.{}", file.package(), candidate.name());
            if name == service {
                methods.extend(candidate.method.iter().map(|method| (format!("/{name}/{}", method.name()), !method.client_streaming())));
            }
        }
    }
    methods
}

/// `routes` of `service` with health and reflection around them. Fails when `table` does not cover them all: default deny at the start.
pub fn router(
    routes: Routes,
    service: &'static str,
    descriptors: &'static [u8],
    table: &MethodTable,
    readiness: &Readiness,
    shutdown: CancellationToken,
) -> Result<Router, Error> {
    let set = FileDescriptorSet::decode(descriptors)?;
    let methods = methods(&set, service);
    let served = methods.iter().map(|(path, _)| path.as_str()).chain(GRPC_INFRASTRUCTURE.iter().map(|method| method.path));
    table.check_registered(served.map(|path| path.trim_start_matches('/')))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    drop(task::spawn(report_health(reporter, service, readiness.clone(), shutdown)));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = routes.add_service(health).add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    let unary: HashSet<String> = methods.into_iter().filter_map(|(path, unary)| unary.then_some(path)).collect();
    Ok(routes.prepare().into_axum_router().layer(from_fn_with_state(Arc::new(unary), require_grpc_content_type)))
}

/// `grpc.health.v1` says what `/readyz` says, for the service and for the whole port ("").
async fn report_health(reporter: HealthReporter, service: &'static str, readiness: Readiness, shutdown: CancellationToken) {
    let mut ready = readiness.subscribe();
    let report_changes = async {
        loop {
            let status = if *ready.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            reporter.set_service_status(service, status).await;
            if ready.changed().await.is_err() {
                return;
            }
        }
    };
    shutdown.run_until_cancelled(report_changes).await;
}

/// tonic runs a handler for any HTTP method, any content type and any number of messages; a browser's form is no gRPC call.
async fn require_grpc_content_type(State(unary): State<Arc<HashSet<String>>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response();
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let grpc = content_type == b"application/grpc"
        || content_type.starts_with(b"application/grpc+proto")
        || content_type.starts_with(b"application/grpc;");
    if !grpc {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let request = if unary.contains(request.uri().path()) { request.map(|body| Body::new(UnaryRequestBody::new(body))) } else { request };
    next.run(request).await
}

//! gRPC router: adds health, reflection and a content-type guard to a service.

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

use crate::health::Readiness;
use palisade_resilience::{
    job::{self, Heartbeat},
    method_table::{MethodTable, MethodTableError},
    task,
};
use palisade_transport::server::{GRPC_INFRASTRUCTURE, accept::BodyPace, grpc_request_body::GrpcRequestBody};

/// Invalid service contract of a gRPC port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors are not a `FileDescriptorSet`.
    #[error("invalid file descriptor set")]
    Descriptors(#[from] prost::DecodeError),
    /// Reflection rejects the descriptors.
    #[error("file descriptor set rejected by reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A method without a table entry or with a wrong one, or a table entry without a method.
    #[error(transparent)]
    Incomplete(#[from] MethodTableError),
}

/// Lists the methods (`/package.Service/Method`) of `service` in its descriptors, and whether each
/// takes a single request message.
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

/// Adds health and reflection to the `routes` of `service`. Fails unless `table` covers all
/// methods: default deny, checked at startup. A request message has at most `max_message_bytes`;
/// set the limit of the generated server no lower.
pub fn router(
    routes: Routes,
    service: &'static str,
    descriptors: &'static [u8],
    table: &MethodTable,
    readiness: &Readiness,
    shutdown: CancellationToken,
    max_message_bytes: usize,
) -> Result<Router, Error> {
    let set = FileDescriptorSet::decode(descriptors)?;
    let methods = methods(&set, service);
    let served = methods.iter().map(|(path, _)| path.as_str()).chain(GRPC_INFRASTRUCTURE.iter().map(|method| method.path));
    table.check_registered(served.map(|path| path.trim_start_matches('/')))?;
    table.check_request_streams(methods.iter().map(|(path, unary)| (path.as_str(), !unary)))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let (readiness, stop) = (readiness.clone(), shutdown.clone());
    let report = move |heartbeat| report_health(reporter.clone(), service, readiness.clone(), stop.clone(), heartbeat);
    drop(task::spawn(job::supervise(Heartbeat::new("health.grpc"), shutdown, report)));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = routes.add_service(health).add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    let unary = methods.into_iter().filter_map(|(path, unary)| unary.then_some(path)).collect();
    let rules = Arc::new(RequestRules { unary, max_message_bytes });
    Ok(routes.prepare().into_axum_router().layer(from_fn_with_state(rules, check_request)))
}

/// Reports the readiness of `/readyz` through `grpc.health.v1`, for the service and for the whole
/// port ("").
async fn report_health(
    reporter: HealthReporter,
    service: &'static str,
    readiness: Readiness,
    shutdown: CancellationToken,
    heartbeat: Heartbeat,
) -> job::Result {
    let mut ready = readiness.subscribe();
    let report_changes = async {
        loop {
            let status = if *ready.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", status).await;
            reporter.set_service_status(service, status).await;
            heartbeat.success();
            if heartbeat.idle(ready.changed()).await.is_err() {
                return;
            }
        }
    };
    shutdown.run_until_cancelled(report_changes).await;
    Ok(())
}

/// Rules that every request must follow.
struct RequestRules {
    /// Paths of the methods with a single request message.
    unary: HashSet<String>,
    max_message_bytes: usize,
}

/// tonic accepts any HTTP method, any content type and any number of messages. The guard rejects
/// other requests, such as a browser's form.
async fn check_request(State(rules): State<Arc<RequestRules>>, request: Request, next: Next) -> Response {
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
    let is_unary = rules.unary.contains(request.uri().path());
    if let Some(pace) = request.extensions().get::<BodyPace>().filter(|_| is_unary) {
        pace.apply_to_whole_body();
    }
    let wrap = if is_unary { GrpcRequestBody::unary } else { GrpcRequestBody::streaming };
    next.run(request.map(|body| Body::new(wrap(body, rules.max_message_bytes)))).await
}

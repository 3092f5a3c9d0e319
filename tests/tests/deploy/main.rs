//! Static checks of the Kubernetes manifests: schema, network policies, resource limits, settings,
//! kustomize references. No cluster needed.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod api;
mod docs;
mod kustomization;
mod manifests;
mod monitoring;
mod network;
mod prometheus_operator;
mod scaling;
mod security_context;
mod settings;
mod termination;

//! Static checks of the Docker Compose stack started by `make up`: resource limits, files,
//! settings, references. No container engine needed.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod collector;
mod docs;
mod files;
mod grafana;
mod jaeger;
mod resource_limits;
mod settings;
mod stack;

//! Process runtime of a service: life cycle, configuration, telemetry, admin port, health checks,
//! background jobs, registration and store instrumentation.

pub mod admin;
pub mod config;
pub mod content_negotiation;
pub mod cursor;
pub mod database_clock;
pub mod group_commit;
pub mod grpc;
pub mod health;
pub mod jobs;
pub mod parse;
pub mod preconditions;
pub mod private_file;
pub mod process;
pub mod registration;
pub mod store_instrumentation;
pub mod telemetry;

#[cfg(test)]
#[path = "../../tests/support/in_memory_exporter.rs"]
mod in_memory_exporter;

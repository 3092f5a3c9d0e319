//! HTTP gateway: JSON outside, gRPC inside. Validates the shape of requests; the services check the
//! business rules.

pub mod cache;
mod callers;
pub mod config;
mod docs;
mod extract;
pub mod metrics;
mod money;
mod openapi;
mod orders;
pub mod problem;
mod products;
mod router;
mod single_flight;
mod start;
mod text;
mod timestamp;
mod upstreams;

pub use cache::Cache;
pub use callers::Callers;
pub use config::{AUDIENCE, Config};
pub use router::{METHODS, router};
pub use start::{keys, start};
pub use upstreams::Upstreams;

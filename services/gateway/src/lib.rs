//! HTTP gateway: JSON outside, gRPC inside. Validates the shape of requests; the services own the
//! business rules.

pub mod cache;
pub mod config;
mod docs;
mod extract;
pub mod metrics;
mod money;
mod openapi;
mod orders;
mod problem;
mod products;
mod router;
mod start;
mod timestamp;
mod upstreams;

pub use cache::Cache;
pub use config::Config;
pub use router::{METHODS, router};
pub use start::{AUDIENCE, keys, start};
pub use upstreams::Upstreams;

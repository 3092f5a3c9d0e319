//! The HTTP API: JSON outside, gRPC inside. It owns no rule of products or orders, only the shape of what is sent.

pub mod config;
mod docs;
mod extract;
mod money;
mod openapi;
mod orders;
mod problem;
mod products;
mod router;
mod start;
mod timestamp;
mod upstreams;

pub use config::Config;
pub use router::{METHODS, router};
pub use start::{AUDIENCE, keys, start};
pub use upstreams::Upstreams;

//! HTTP transport: requests to one origin with reqwest.

mod endpoint;
mod origin;

pub use endpoint::Endpoint;
pub use origin::{InvalidOrigin, Origin};

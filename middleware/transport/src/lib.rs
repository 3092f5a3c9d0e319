//! Transport of HTTP and gRPC services: accept loop with limits, client connections, load balancing
//! with outlier ejection, and TLS.
//!
//! | module | content |
//! |---|---|
//! | [`server`] | accept loop, HTTP/2 limits, connection age, graceful shutdown, HTTP guard |
//! | [`client`] | lazy connections with backoff, P2C load balancing (peak EWMA), outlier ejection |
//! | [`network`] | replacement of TCP by a simulated network |
//! | [`tls`] | certificates of ports and upstreams, reloaded while running; mTLS peer identity |

pub mod client;
pub mod network;
pub mod server;
mod sync;
pub mod tls;

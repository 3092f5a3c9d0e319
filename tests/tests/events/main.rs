//! Event tests: order watch streams over HTTP (SSE) and gRPC, and published events, through crashes
//! of services and broker.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod products;
mod relay;
mod replicas;
mod stream;
mod traces;

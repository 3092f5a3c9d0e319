//! Input validation tests: bodies, tokens, and requests on the gRPC ports that no gRPC library
//! would send.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod bodies;
mod grpc_requests;
mod tokens;

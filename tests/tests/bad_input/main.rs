//! Bad input by the table: bodies, tokens, and requests on the gRPC ports that no gRPC library would send.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bodies;
mod grpc_requests;
mod tokens;

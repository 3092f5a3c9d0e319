//! What is told of orders: to whoever watches one, over HTTP and gRPC, and to the broker, through crashes of all of them.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod products;
mod relay;
mod replicas;
mod stream;
mod traces;

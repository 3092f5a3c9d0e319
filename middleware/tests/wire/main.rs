//! Wire tests: raw bytes against the accept loop with the full server stack.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

mod descriptors;
mod drain;
mod fixture;
mod frames;
mod http1;
mod http2;
mod limits;
mod slow_peers;
mod timeouts;

//! The servers as the wire sees them: raw bytes against the accept loop with the whole stack behind it.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod app;
mod descriptors;
mod drain;
mod frames;
mod http1;
mod http2;
mod limits;
mod slow;

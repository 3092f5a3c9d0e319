//! The contract, seen from outside: what any client of port 3000 may rely on.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod admin;
mod errors;
mod headers;
mod idempotency;
mod lifecycle;
mod limits;
mod lists;
mod orders;
mod products;
mod programs;
mod resume;

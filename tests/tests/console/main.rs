//! Console of the all-in-one: its feed, its switches, its page in a browser, and the demo.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod browser;
mod demo;
mod feed;

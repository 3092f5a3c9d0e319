//! Replicas of products behind a list, DNS and etcd: they come and go under load, and no request that may be repeated fails.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod balance;
mod dns;
mod etcd;
mod list;
mod scene;

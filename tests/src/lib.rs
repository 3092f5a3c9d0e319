//! Test infrastructure of Palisade: real servers, real processes, real clients.
//!
//! Missing prerequisites panic with installation instructions. A test is never skipped silently.
#![expect(clippy::missing_panics_doc, reason = "tests fail by panicking")]

use std::time::Duration;

pub mod child;
pub mod client;
pub mod fault_proxy;
pub mod files;
pub mod gateways;
pub mod jwt;
pub mod ledger;
pub mod load;
pub mod metrics_recorder;
pub mod otlp;
pub mod process;
pub mod random;
pub mod rules;
pub mod servers;
pub mod shop;
pub mod shop_helpers;
pub mod sse;
pub mod traffic;

pub use client::{Client, Response};
pub use shop::Shop;

/// Polls 20 times per second until `ask` returns a value. Panics after a minute.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let found = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            pace.tick().await;
            if let Some(value) = ask().await {
                return value;
            }
        }
    });
    found.await.expect("condition is met within a minute")
}

/// Returns a name that no other test uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

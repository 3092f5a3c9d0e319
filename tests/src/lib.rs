//! Real servers, real processes and a real client for the tests of Palisade.
//!
//! Everything here panics when the machine lacks something, and says how to get it: a test is never skipped in silence.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a test fails")]

use std::time::Duration;

pub mod child;
pub mod client;
pub mod sse;
pub mod fault_proxy;
pub mod files;
pub mod gateways;
pub mod jwt;
pub mod ledger;
pub mod load;
pub mod otlp;
pub mod process;
pub mod random;
pub mod metrics_recorder;
pub mod rules;
pub mod servers;
pub mod shop;
pub mod shop_helpers;
pub mod traffic;

pub use client::{Answer, Client};
pub use shop::Shop;

/// Asks again, 20 times a second, until there is a value; fails after a minute.
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
    found.await.expect("it comes about within a minute")
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

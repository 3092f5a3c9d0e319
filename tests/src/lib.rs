//! Test infrastructure of Palisade: real servers, real processes, real clients.
//!
//! Missing prerequisites panic with installation instructions. A test is never skipped silently.
#![expect(clippy::missing_panics_doc, reason = "tests fail by panicking")]

use std::{panic::Location, time::Duration};

pub mod child;
pub mod client;
pub mod fault_proxy;
pub mod files;
pub mod free_port;
pub mod jwt;
pub mod ledger;
pub mod linearizability;
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

/// Maximum wait for any condition. Only protects against a hang: no test judges speed.
pub const HANG_TIMEOUT: Duration = Duration::from_mins(3);

/// Polls 20 times per second until `ask` returns a value. Panics after [`HANG_TIMEOUT`].
#[track_caller]
pub fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        let polling = async {
            loop {
                ticks.tick().await;
                if let Some(value) = ask().await {
                    return value;
                }
            }
        };
        let value = tokio::time::timeout(HANG_TIMEOUT, polling).await;
        value.unwrap_or_else(|_| panic!("condition at {caller} is not met within {HANG_TIMEOUT:?}"))
    }
}

/// Returns a name that no other test uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

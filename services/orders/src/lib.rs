//! The orders service: orders, and the saga that takes each to its end.

pub mod admin;
pub mod config;
pub mod saga_executor;
pub mod grpc;
pub mod metrics;
pub mod order;
pub mod products;
pub mod relay;
pub mod saga;
pub mod start;
pub mod store;
pub mod watch;
pub mod worker;

pub use config::Config;
pub use start::{keys, migrate, redrive, start};

//! Orders service: orders and the saga that reserves and confirms their stock.

pub mod admin;
pub mod archive;
pub mod audit;
mod background;
mod claim_pace;
pub mod config;
pub mod erasure;
pub mod fulfiller;
pub mod fulfilment;
pub mod grpc;
pub mod housekeeping;
pub mod metrics;
pub mod order;
pub mod products;
pub mod relay;
pub mod repair;
pub mod retention;
pub mod saga;
pub mod saga_executor;
pub mod start;
pub mod store;
pub mod watch;
pub mod worker;

pub use config::Config;
pub use start::{erase, keys, migrate, redrive, start, start_with_store};

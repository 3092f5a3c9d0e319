//! Products service: the catalogue and the stock of each product.

pub mod admin;
mod background;
pub mod config;
pub mod erasure;
pub mod grpc;
pub mod ledger_keeper;
pub mod metrics;
pub mod product;
pub mod relay;
pub mod reservation;
pub mod search_limit;
pub mod search_refresher;
pub mod start;
pub mod stock_ledger;
pub mod store;
pub mod sweeper;

pub use config::Config;
pub use start::{erase, start, start_with_store, verifier};

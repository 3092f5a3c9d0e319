//! Contract tests: guarantees for clients of port 3000.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod admin;
mod authorization;
mod cli;
mod conditional_requests;
mod errors;
mod fulfilment;
mod grpc_fields;
mod headers;
mod history;
mod idempotency;
mod identity;
mod lifecycle;
mod limits;
mod lists;
mod max_total;
mod openapi;
mod order_lists;
mod orders;
mod page_size;
mod patches;
mod pending_orders;
mod product_history;
mod products;
mod revisions;
mod stock;

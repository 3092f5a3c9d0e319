//! Linearizability: histories that concurrent clients record at replicas, which are killed
//! meanwhile, are explained by a sequential model of a product and of an order.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod order;
mod orders;
mod product;
mod products;
mod replicas;

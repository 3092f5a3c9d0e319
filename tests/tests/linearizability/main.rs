//! Linearizability: histories that concurrent clients record at replicas, which are killed
//! meanwhile, are explained by a sequential model of a product and of an order.

mod order;
mod orders;
mod product;
mod products;
mod replicas;

//! Stores of the simulated services: the real SQLite stores, which the store suites test, behind a
//! simulated disk.

pub mod orders;
pub mod products;

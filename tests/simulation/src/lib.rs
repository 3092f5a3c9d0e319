//! Deterministic simulation: gateway, products and orders with their real layers, jobs and stores
//! over a simulated network and clock, with faults from a seed.
//!
//! A run is a function of its seed: the same seed has the same events, and the same hash of them.
//! `make simulate SEED=n` repeats a run; [docs/simulation.md] describes faults and invariants.
//!
//! [docs/simulation.md]: ../../../docs/simulation.md

pub mod client;
pub mod clock;
pub mod disk;
pub mod invariants;
pub mod network;
pub mod plan;
pub mod planted;
pub mod run;
pub mod services;
pub mod store;
pub mod story;

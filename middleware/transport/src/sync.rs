//! Synchronization primitives of the lock-free parts; the loom test `tests/loom_models.rs`
//! replaces this module.

pub(crate) use std::sync::atomic;

pub(crate) use parking_lot::Mutex;

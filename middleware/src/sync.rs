//! What the lock-free parts are made of, in one place: `tests/interleavings.rs` puts loom's in its stead.

pub(crate) use std::sync::atomic;

pub(crate) use parking_lot::Mutex;

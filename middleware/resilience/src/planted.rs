//! Planted faults: bugs that a simulation switches on, to prove that it would find them.
//!
//! [`planted!`](crate::planted!) is false in builds without debug assertions, and in every other
//! process that has not called [`activate`].

use std::sync::OnceLock;

static ACTIVE: OnceLock<String> = OnceLock::new();

/// Switches on one planted fault for the rest of the process. Returns `false` if there already is
/// one.
pub fn activate(name: impl Into<String>) -> bool {
    ACTIVE.set(name.into()).is_ok()
}

/// Whether the planted fault `name` is switched on.
pub fn is_active(name: &str) -> bool {
    ACTIVE.get().is_some_and(|active| active == name)
}

/// Whether a planted fault is switched on. A constant `false` without debug assertions.
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        cfg!(debug_assertions) && $crate::planted::is_active($name)
    };
}

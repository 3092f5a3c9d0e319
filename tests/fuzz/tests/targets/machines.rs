//! State machines with sequences of events.

pub(crate) mod breaker;
pub(crate) mod overload;
pub(crate) mod reservation;
pub(crate) mod saga;

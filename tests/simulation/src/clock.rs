//! Wall clocks of the simulated hosts: simulated time plus the skew of the host.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use palisade_middleware::clock::{self, Clock};
use time::{OffsetDateTime, macros::datetime};

/// Time at which every simulation begins.
pub const START: OffsetDateTime = datetime!(2026-06-01 08:00 UTC);

/// Wall clock of a host, which a fault can set.
#[derive(Debug, Clone, Default)]
pub struct SimulatedClock {
    skew_ms: Arc<AtomicI64>,
}

impl SimulatedClock {
    /// Sets the difference to the simulated time.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> OffsetDateTime {
        let skew = time::Duration::milliseconds(self.skew_ms.load(Ordering::Relaxed));
        clock::truncate(clock::after(START, elapsed()).saturating_add(skew))
    }
}

/// Simulated time since the start; zero outside of a simulation.
pub fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

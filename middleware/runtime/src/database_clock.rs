//! Wall clock of a database server, so that replicas whose own clocks are wrong agree on leases and
//! due times.

use std::sync::Arc;

use parking_lot::RwLock;
use time::OffsetDateTime;
use tokio::time::Instant;

use palisade_resilience::clock::{self, Clock};

/// A reading that differs by less is ignored: it is the delay of the network, and time would jump
/// back and forth.
const TOLERANCE: time::Duration = time::Duration::milliseconds(50);

/// Clock that follows the readings of a server. Between two readings it advances with the monotonic
/// clock of the process, so that a step of the system clock has no effect. Before the first reading
/// it shows the time of another clock.
#[derive(Debug, Clone)]
pub struct DatabaseClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    own: Arc<dyn Clock>,
    reading: RwLock<Option<Reading>>,
    offset: OffsetGauge,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    server_time: OffsetDateTime,
    read_at: Instant,
}

struct OffsetGauge(metrics::Gauge);

impl std::fmt::Debug for OffsetGauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OffsetGauge")
    }
}

impl DatabaseClock {
    /// Creates a clock that shows the time of `own` until the first reading.
    pub fn new(own: Arc<dyn Clock>) -> Self {
        let offset = palisade_resilience::gauge!("palisade.store.clock_offset");
        offset.set(f64::NAN);
        Self(Arc::new(Shared { own, reading: RwLock::default(), offset: OffsetGauge(offset) }))
    }

    /// Records that the server showed `server_time` at some time since `asked`.
    pub fn synchronize(&self, server_time: OffsetDateTime, asked: Instant) {
        let read_at = Instant::now();
        let server_time = clock::after(server_time, read_at.duration_since(asked) / 2);
        self.0.offset.0.set((server_time - self.0.own.now()).as_seconds_f64());
        let mut reading = self.0.reading.write();
        if reading.is_none_or(|reading| (reading.at(read_at) - server_time).abs() > TOLERANCE) {
            *reading = Some(Reading { server_time, read_at });
        }
    }

    /// Follows a probe that returns the time of its server, if that has a clock of its own. Returns
    /// the error of the probe.
    pub async fn follow<E>(&self, probe: impl Future<Output = Result<Option<OffsetDateTime>, E>>) -> Result<(), E> {
        let asked = Instant::now();
        // Without a reading the offset is unknown. The clock itself goes on from its last reading.
        match probe.await.inspect_err(|_| self.0.offset.0.set(f64::NAN))? {
            Some(now) => self.synchronize(now, asked),
            // A store in this process has no clock of its own.
            None => self.0.offset.0.set(0.0),
        }
        Ok(())
    }
}

impl Reading {
    fn at(self, now: Instant) -> OffsetDateTime {
        clock::after(self.server_time, now.saturating_duration_since(self.read_at))
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> OffsetDateTime {
        match *self.0.reading.read() {
            Some(reading) => clock::truncate(reading.at(Instant::now())),
            None => self.0.own.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use time::macros::datetime;
    use tokio::time::advance;

    use super::*;
    use palisade_resilience::clock::ManualClock;

    #[tokio::test(start_paused = true)]
    async fn offset_is_unknown_without_a_reading() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let now = datetime!(2026-11-22 12:00 UTC);
        let clock = DatabaseClock::new(Arc::new(ManualClock::new(now)));
        let offset = || {
            let page = recorder.handle().render();
            page.lines().find_map(|line| line.strip_prefix("palisade_store_clock_offset ")).map(str::to_owned).unwrap_or(page)
        };
        assert_eq!(offset(), "NaN", "before the first reading");
        clock.follow::<&str>(async { Ok(None) }).await.unwrap();
        assert_eq!(offset(), "0", "a store without a clock of its own");
        clock.follow::<&str>(async { Err("unavailable") }).await.unwrap_err();
        assert_eq!(offset(), "NaN", "after a failed probe");
        clock.follow::<&str>(async { Ok(Some(now + Duration::from_secs(2))) }).await.unwrap();
        assert_eq!(offset(), "2");
    }

    #[tokio::test(start_paused = true)]
    async fn clock_follows_the_server_and_not_the_process() {
        let own = ManualClock::new(datetime!(2026-11-22 12:10 UTC));
        let clock = DatabaseClock::new(Arc::new(own.clone()));
        assert_eq!(clock.now(), datetime!(2026-11-22 12:10 UTC));
        clock.synchronize(datetime!(2026-11-22 12:00 UTC), Instant::now());
        assert_eq!(clock.now(), datetime!(2026-11-22 12:00 UTC));
        own.advance(Duration::from_hours(1));
        advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now(), datetime!(2026-11-22 12:00:03 UTC));
        // The network delay is no change.
        clock.synchronize(datetime!(2026-11-22 12:00:03.04 UTC), Instant::now());
        assert_eq!(clock.now(), datetime!(2026-11-22 12:00:03 UTC));
        let asked = Instant::now();
        advance(Duration::from_secs(2)).await;
        clock.synchronize(datetime!(2026-11-22 13:00 UTC), asked);
        assert_eq!(clock.now(), datetime!(2026-11-22 13:00:01 UTC));
    }
}

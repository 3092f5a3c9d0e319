//! Traces recorded for this process alone, whatever the sampling decision.
//!
//! Lock-free, of a fixed size: a newer trace may take the entry of an older one, whose later spans
//! are then not recorded.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::TraceId;
use tokio::time::Instant;

/// Traces known at the same time.
const ENTRIES: usize = 4_096;

/// Ids of the traces recorded for this process alone. At most a fixed number begins per second,
/// which bounds the cost under load.
#[derive(Debug)]
pub struct LocalTraces {
    entries: Box<[AtomicU64]>,
    /// Traces to be exported nevertheless: first their spans so far, then each further one.
    kept: Box<[AtomicU64]>,
    exported: Box<[AtomicU64]>,
    started: Instant,
    max_per_second: u32,
    /// Second since `started`, and the traces begun in it.
    begun: AtomicU64,
}

impl LocalTraces {
    /// Creates an empty set that admits `max_per_second` new traces.
    pub fn new(max_per_second: u32) -> Self {
        let [entries, kept, exported] = [(); 3].map(|()| (0..ENTRIES).map(|_| AtomicU64::new(0)).collect());
        Self { entries, kept, exported, started: Instant::now(), max_per_second, begun: AtomicU64::new(0) }
    }

    /// Returns whether the trace is recorded.
    pub fn contains(&self, id: TraceId) -> bool {
        let key = key(id);
        key != 0 && entry(&self.entries, key).load(Ordering::Relaxed) == key
    }

    /// Adds a trace that continues a recorded one.
    pub fn insert(&self, id: TraceId) {
        let key = key(id);
        entry(&self.entries, key).store(key, Ordering::Relaxed);
    }

    /// Removes a trace, which a caller may repeat to be recorded without [`Self::admit`].
    pub(super) fn remove(&self, id: TraceId) {
        let key = key(id);
        let _ = entry(&self.entries, key).compare_exchange(key, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Marks a trace to be exported.
    pub(super) fn keep(&self, id: TraceId) {
        let key = key(id);
        entry(&self.kept, key).store(key, Ordering::Relaxed);
    }

    /// Takes the mark of a trace to be exported. Returns `true` once: the spans so far are due.
    pub fn take_kept(&self, id: TraceId) -> bool {
        let key = key(id);
        let taken = key != 0 && entry(&self.kept, key).compare_exchange(key, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if taken {
            entry(&self.exported, key).store(key, Ordering::Relaxed);
        }
        taken
    }

    /// Returns whether the spans so far were exported, and each further one is due.
    pub fn is_exported(&self, id: TraceId) -> bool {
        let key = key(id);
        key != 0 && entry(&self.exported, key).load(Ordering::Relaxed) == key
    }

    /// Returns whether a new trace is recorded: at most a fixed number per second.
    pub(super) fn admit(&self) -> bool {
        self.count(self.started.elapsed().as_secs())
    }

    /// Counts a new trace in this second. Returns `false` at the maximum.
    fn count(&self, second: u64) -> bool {
        let next = |begun: u64| {
            let count = if begun >> 32 == second { begun & u64::from(u32::MAX) } else { 0 };
            (count < u64::from(self.max_per_second)).then_some(second << 32 | (count + 1))
        };
        self.begun.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the remainder is smaller than the number of entries")]
fn entry(entries: &[AtomicU64], key: u64) -> &AtomicU64 {
    &entries[(key % ENTRIES as u64) as usize]
}

/// The random half of a trace id (W3C Trace Context level 2).
#[expect(clippy::cast_possible_truncation, reason = "half of the id")]
fn key(id: TraceId) -> u64 {
    u128::from_be_bytes(id.to_bytes()) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(id: u128) -> TraceId {
        TraceId::from(id)
    }

    #[tokio::test(start_paused = true)]
    async fn local_traces_admit_a_maximum_per_second() {
        let traces = LocalTraces::new(2);
        assert_eq!([(); 3].map(|()| traces.admit()), [true, true, false]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(traces.admit());
    }

    #[tokio::test(start_paused = true)]
    async fn local_traces_contain_what_was_inserted() {
        let traces = LocalTraces::new(1);
        assert!(!traces.contains(id(1)));
        traces.insert(id(1));
        traces.insert(id(2));
        traces.remove(id(1));
        assert_eq!([1, 2].map(|trace| traces.contains(id(trace))), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn kept_local_trace_is_taken_once() {
        let traces = LocalTraces::new(1);
        assert!(!traces.take_kept(id(1)) && !traces.is_exported(id(1)));
        traces.keep(id(1));
        assert_eq!([traces.take_kept(id(1)), traces.take_kept(id(1))], [true, false]);
        assert!(traces.is_exported(id(1)) && !traces.is_exported(id(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn local_traces_have_a_fixed_size() {
        let traces = LocalTraces::new(u32::MAX);
        let many = 3 * ENTRIES as u128;
        (1..=many).for_each(|trace| traces.insert(id(trace)));
        assert_eq!((1..=many).filter(|trace| traces.contains(id(*trace))).count(), ENTRIES);
        assert!(traces.contains(id(many)) && !traces.contains(id(1)));
        assert!(!traces.contains(TraceId::INVALID));
    }
}

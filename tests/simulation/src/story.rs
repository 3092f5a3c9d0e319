//! The story of a run: what happened, in order, and a hash of it.

use std::{
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::clock;

/// Maximum number of lines that a failed run prints.
const LAST_LINES: usize = 120;

/// Recorder of events. Clones share the record.
#[derive(Clone, Default)]
pub struct Story(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    lines: Vec<(Duration, String)>,
    hasher: DefaultHasher,
    violations: Vec<Violation>,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the invariant.
    pub invariant: &'static str,
    /// Evidence.
    pub evidence: String,
}

impl Story {
    /// Records an event of `actor` at the current simulated time.
    pub fn tell(&self, actor: &str, event: impl AsRef<str>) {
        self.tell_at(clock::elapsed(), actor, event);
    }

    /// Records an event outside of the hosts.
    pub fn tell_at(&self, at: Duration, actor: &str, event: impl AsRef<str>) {
        let line = format!("{actor:<10} {}", event.as_ref());
        let mut record = self.0.lock();
        // Outside of the hosts there is no time: the event follows the last one.
        let at = record.lines.last().map_or(at, |(last, _)| at.max(*last));
        (at, &line).hash(&mut record.hasher);
        record.lines.push((at, line));
    }

    /// Adds a call to the hash, without a line of text.
    pub fn note(&self, actor: &str, call: &str, succeeded: bool) {
        (clock::elapsed(), actor, call, succeeded).hash(&mut self.0.lock().hasher);
    }

    /// Records a broken invariant.
    pub fn violate(&self, invariant: &'static str, evidence: impl Into<String>) {
        let evidence = evidence.into();
        self.tell("INVARIANT", format!("{invariant}: {evidence}"));
        self.0.lock().violations.push(Violation { invariant, evidence });
    }

    /// Returns the first broken invariant.
    pub fn violation(&self) -> Option<Violation> {
        self.0.lock().violations.first().cloned()
    }

    /// Returns the hash of all events and their times.
    pub fn hash(&self) -> u64 {
        self.0.lock().hasher.finish()
    }

    /// Returns the last events as text, or all of them.
    pub fn text(&self, all: bool) -> String {
        let record = self.0.lock();
        let skipped = if all { 0 } else { record.lines.len().saturating_sub(LAST_LINES) };
        let mut text = if skipped > 0 { format!("… {skipped} earlier events, `--story` prints them\n") } else { String::new() };
        for (at, line) in &record.lines[skipped..] {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:>9.3} s  {line}", at.as_secs_f64());
        }
        text
    }
}

//! Exemplars of duration histograms: the last exported trace of each bucket. The exporter has none,
//! so each handle is wrapped and the exposition is completed.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use metrics::{Histogram, HistogramFn, Key};
use metrics_exporter_prometheus::formatting::{sanitize_label_key, sanitize_label_value, sanitize_metric_name};
use opentelemetry::TraceId;
use palisade_resilience::{
    metrics::{CATALOG, Kind},
    trace::tail_sampling::{ExemplarSlots, offer_exemplar},
};
use parking_lot::Mutex;

use crate::telemetry::DURATION_BUCKETS;

/// Exemplars by series: its name and its labels, as in the exposition without the unit.
#[derive(Default)]
pub(super) struct Exemplars(Mutex<HashMap<(String, String), Arc<Buckets>>>);

/// Exemplars of one series by bucket. Allocated with the first one.
#[derive(Default)]
struct Buckets(Mutex<Option<Box<[Option<Exemplar>; DURATION_BUCKETS.len() + 1]>>>);

#[derive(Debug, Clone, Copy)]
struct Exemplar {
    trace: TraceId,
    value: f64,
    at: SystemTime,
}

impl ExemplarSlots for Buckets {
    #[expect(clippy::disallowed_methods, reason = "timestamps of exemplars do not affect behaviour")]
    fn set(&self, trace: TraceId, value: f64) {
        let bucket = DURATION_BUCKETS.partition_point(|bound| *bound < value);
        let exemplar = Exemplar { trace, value, at: SystemTime::now() };
        self.0.lock().get_or_insert_default()[bucket] = Some(exemplar);
    }
}

impl Buckets {
    /// Returns the exemplar of the bucket with this upper bound.
    fn get(&self, bound: &str) -> Option<Exemplar> {
        let bound: f64 = bound.parse().ok()?;
        let bucket = DURATION_BUCKETS.partition_point(|lower| *lower < bound);
        (*self.0.lock()).as_deref()?.get(bucket).copied().flatten()
    }
}

impl Exemplars {
    /// Wraps the handle of a duration histogram.
    pub(super) fn wrap(&self, key: &Key, histogram: Histogram) -> Histogram {
        let has_other_buckets = |name: &str| CATALOG.iter().any(|metric| metric.kind == Kind::CountHistogram && metric.full_name() == name);
        if has_other_buckets(key.name()) {
            return histogram;
        }
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}=\"{}\"", sanitize_label_key(label.key()), sanitize_label_value(label.value()))).collect();
        let series = (sanitize_metric_name(key.name()), labels.join(","));
        let slots = self.0.lock().entry(series).or_default().clone();
        Histogram::from_arc(Arc::new(WithExemplars { histogram, slots }))
    }

    /// Appends the exemplar of a bucket to its line.
    pub(super) fn append(&self, line: &mut String) {
        let Some((series, bound, _)) = parse_bucket(line) else { return };
        let exemplar = self.0.lock().get(&series).and_then(|buckets| buckets.get(bound));
        if let Some(Exemplar { trace, value, at }) = exemplar {
            let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            // Writing to a string cannot fail.
            let _ = write!(line, " # {{trace_id=\"{trace}\"}} {value} {at:.3}");
        }
    }
}

/// Splits the line of a bucket into its series, its upper bound and its value.
fn parse_bucket(line: &str) -> Option<((String, String), &str, &str)> {
    let (name, rest) = line.split_once("_bucket{")?;
    let (labels, rest) = rest.rsplit_once("le=\"")?;
    let (bound, value) = rest.split_once("\"}")?;
    let name = name.strip_suffix("_seconds").unwrap_or(name);
    Some(((name.to_owned(), labels.trim_end_matches(',').to_owned()), bound, value))
}

struct WithExemplars {
    histogram: Histogram,
    slots: Arc<Buckets>,
}

impl HistogramFn for WithExemplars {
    fn record(&self, value: f64) {
        self.histogram.record(value);
        offer_exemplar(&self.slots, value);
    }
}

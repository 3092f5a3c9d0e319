//! In-memory metrics recorder that renders Prometheus text.
//!
//! ```
//! let recorder = palisade_tests::metrics_recorder::MetricsRecorder::new();
//! let _guard = recorder.install();
//! metrics::counter!("orders", "outcome" => "failed").increment(1);
//! assert_eq!(recorder.value("orders_total", &[("outcome", "failed")]).as_deref(), Some("1"));
//! ```

mod pool;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use pool::PoolMetrics;

/// Metrics recorder of a single test.
pub struct MetricsRecorder {
    recorder: PrometheusRecorder,
    text: PrometheusHandle,
}

impl MetricsRecorder {
    /// Creates an empty recorder. Histograms have the buckets 1 and infinity.
    #[expect(clippy::new_without_default, reason = "a recorder is created explicitly")]
    pub fn new() -> Self {
        let builder = PrometheusBuilder::new().with_recommended_naming(true);
        let recorder = builder.set_buckets(&[1.0]).expect("bucket list is not empty").build_recorder();
        Self { text: recorder.handle(), recorder }
    }

    /// Records the metrics of this thread until the guard is dropped. Handles created meanwhile
    /// record from any thread.
    pub fn install(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(&self.recorder)
    }

    /// Returns the value of each exposed series, keyed by name and labels.
    pub fn series(&self) -> BTreeMap<String, String> {
        samples(&self.text.render()).map(|(series, value)| (series.to_owned(), value.to_owned())).collect()
    }

    /// Returns the value of the only series `name` with all these labels. `None` if there is none
    /// or more than one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<String> {
        let has_labels = |series: &str| labels.iter().all(|(key, value)| series.contains(&format!(r#"{key}="{value}""#)));
        let mut found = self.series().into_iter().filter(|(series, _)| series.split('{').next() == Some(name) && has_labels(series));
        let only = found.next()?.1;
        found.next().is_none().then_some(only)
    }

    /// Returns the label keys of every metric, by exposed name.
    pub fn labels(&self) -> Labels {
        labels(&self.text.render())
    }
}

/// Asserts that metrics are registered up front.
///
/// After `register`, exactly the metrics of `catalogue` (exposed names and labels) exist, all at
/// zero. `record_everything` changes each of them and adds none.
#[track_caller]
pub fn assert_all_preregistered<'a>(
    catalogue: impl IntoIterator<Item = (String, &'a [&'a str])>,
    register: impl FnOnce(),
    record_everything: impl FnOnce(),
) {
    let recorder = MetricsRecorder::new();
    let _guard = recorder.install();
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let expected: Labels = catalogue.into_iter().map(|(name, keys)| (name, labels(keys))).collect();
    register();
    let initial_series = recorder.series();
    assert_eq!(recorder.labels(), expected);
    assert!(initial_series.values().all(|value| matches!(&**value, "0" | "NaN")), "{initial_series:?}");
    record_everything();
    let final_series = recorder.series();
    assert_eq!(final_series.keys().collect::<Vec<_>>(), initial_series.keys().collect::<Vec<_>>());
    assert!(final_series.values().all(|value| !matches!(&**value, "0" | "NaN")), "{final_series:?}");
}

/// Label keys by exposed metric name.
pub type Labels = BTreeMap<String, BTreeSet<String>>;

/// Returns the metrics in a Prometheus text page, without the bucket label `le`. Panics on
/// duplicate metrics.
pub fn labels(text: &str) -> Labels {
    let mut named = BTreeSet::new();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(named.insert(name), "{name} is exposed twice");
    }
    let mut metrics = Labels::new();
    for (series, _) in samples(text) {
        let (sample, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut stems = ["", "_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| sample.strip_suffix(suffix));
        let name = stems.find(|name| named.contains(name)).expect("a sample belongs to a metric");
        let keys = labels.trim_end_matches('}').split("\",").filter_map(|label| Some(label.split_once('=')?.0));
        metrics.entry(name.to_owned()).or_default().extend(keys.filter(|key| *key != "le").map(str::to_owned));
    }
    metrics
}

/// Returns each series with its value.
fn samples(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').expect("line has a series and a value"))
}

impl fmt::Debug for MetricsRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.render())
    }
}

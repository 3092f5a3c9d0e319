//! What a piece of code records of itself, as Prometheus would read it.
//!
//! ```
//! let recorded = palisade_tests::recorded::Recorded::new();
//! let _recording = recorded.here();
//! metrics::counter!("orders", "outcome" => "failed").increment(1);
//! assert_eq!(recorded.value("orders_total", &[("outcome", "failed")]).as_deref(), Some("1"));
//! ```

mod pool;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use pool::Pool;

/// A recorder that nobody else has.
pub struct Recorded {
    recorder: PrometheusRecorder,
    text: PrometheusHandle,
}

impl Recorded {
    /// Nothing is recorded yet. Histograms have the bounds 1 and infinity.
    #[expect(clippy::new_without_default, reason = "it is nothing that anybody has by default")]
    pub fn new() -> Self {
        let builder = PrometheusBuilder::new().with_recommended_naming(true);
        let recorder = builder.set_buckets(&[1.0]).expect("there is a bound").build_recorder();
        Self { text: recorder.handle(), recorder }
    }

    /// From now on this thread's metrics are recorded here; a handle that was looked up meanwhile records here from any thread.
    pub fn here(&self) -> LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(&self.recorder)
    }

    /// Each series as it is exposed, labels included, with its value.
    pub fn series(&self) -> BTreeMap<String, String> {
        samples(&self.text.render()).map(|(series, value)| (series.to_owned(), value.to_owned())).collect()
    }

    /// The value of the series `name` that has all these labels, if there is just one such series.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<String> {
        let has = |series: &str| labels.iter().all(|(key, value)| series.contains(&format!(r#"{key}="{value}""#)));
        let mut found = self.series().into_iter().filter(|(series, _)| series.split('{').next() == Some(name) && has(series));
        let only = found.next()?.1;
        found.next().is_none().then_some(only)
    }

    /// Every metric by its exposed name, with the keys of its labels.
    pub fn labels(&self) -> Labels {
        labels(&self.text.render())
    }
}

/// Asserts that after `register` there are just the metrics of `catalogue`, exposed names and labels, all at zero, and that `record_everything` moves
/// each and adds none.
#[track_caller]
pub fn assert_all_preregistered<'a>(
    catalogue: impl IntoIterator<Item = (String, &'a [&'a str])>,
    register: impl FnOnce(),
    record_everything: impl FnOnce(),
) {
    let recorded = Recorded::new();
    let _recording = recorded.here();
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let expected: Labels = catalogue.into_iter().map(|(name, of)| (name, labels(of))).collect();
    register();
    let at_first = recorded.series();
    assert_eq!(recorded.labels(), expected);
    assert!(at_first.values().all(|value| value == "0"), "{at_first:?}");
    record_everything();
    let at_last = recorded.series();
    assert_eq!(at_last.keys().collect::<Vec<_>>(), at_first.keys().collect::<Vec<_>>());
    assert!(at_last.values().all(|value| value != "0"), "{at_last:?}");
}

/// Metrics by their exposed names, with the keys of their labels.
pub type Labels = BTreeMap<String, BTreeSet<String>>;

/// The metrics of a page of Prometheus text; the labels of buckets are the format's. Panics if one is there twice.
pub fn labels(text: &str) -> Labels {
    let mut named = BTreeSet::new();
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(named.insert(name), "{name} is shown twice");
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

/// Each series with its value.
fn samples(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').expect("a series and its value"))
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.render())
    }
}

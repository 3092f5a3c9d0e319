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
        let text = self.text.render();
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = samples.map(|line| line.rsplit_once(' ').expect("a series and its value"));
        samples.map(|(series, value)| (series.to_owned(), value.to_owned())).collect()
    }

    /// The value of the series `name` that has all these labels, if there is just one such series.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<String> {
        let has = |series: &str| labels.iter().all(|(key, value)| series.contains(&format!(r#"{key}="{value}""#)));
        let mut found = self.series().into_iter().filter(|(series, _)| series.split('{').next() == Some(name) && has(series));
        let only = found.next()?.1;
        found.next().is_none().then_some(only)
    }

    /// Every metric by its exposed name, with the keys of its labels; those of buckets are the format's.
    pub fn labels(&self) -> BTreeMap<String, BTreeSet<String>> {
        let text = self.text.render();
        let named: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut metrics = BTreeMap::<String, BTreeSet<String>>::new();
        for series in self.series().into_keys() {
            let (sample, labels) = series.split_once('{').unwrap_or((&series, ""));
            let mut stems = ["", "_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| sample.strip_suffix(suffix));
            let name = stems.find(|name| named.contains(name)).expect("a sample belongs to a metric");
            let keys = labels.trim_end_matches('}').split("\",").filter_map(|label| Some(label.split_once('=')?.0));
            metrics.entry(name.to_owned()).or_default().extend(keys.filter(|key| *key != "le").map(str::to_owned));
        }
        metrics
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.render())
    }
}

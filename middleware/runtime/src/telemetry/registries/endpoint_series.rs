//! Series of single endpoints: removed once their endpoint is gone. The exporter cannot remove a
//! series, so each endpoint has a recorder of its own, which is dropped as a whole.

use std::{collections::HashMap, fmt::Write};

use metrics::Key;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use parking_lot::Mutex;

use palisade_resilience::metrics::{ENDPOINT_LABEL, is_live};

/// Label value shared by all endpoints without series of their own.
const SHARED: &str = "other";

/// Recorders by endpoint.
#[derive(Default)]
pub(super) struct EndpointSeries(Mutex<HashMap<String, PrometheusRecorder>>);

/// Returns the endpoint that the series `key` belongs to.
pub(super) fn endpoint_of(key: &Key) -> Option<&str> {
    let label = key.labels().find(|label| label.key() == ENDPOINT_LABEL)?;
    Some(label.value()).filter(|endpoint| !endpoint.is_empty() && *endpoint != SHARED)
}

impl EndpointSeries {
    pub(super) fn register<T>(&self, endpoint: &str, register: impl Fn(&PrometheusRecorder) -> T) -> T {
        let mut recorders = self.0.lock();
        if let Some(recorder) = recorders.get(endpoint) {
            return register(recorder);
        }
        let recorder = PrometheusBuilder::new().with_recommended_naming(true).build_recorder();
        let registered = register(&recorder);
        recorders.insert(endpoint.to_owned(), recorder);
        registered
    }

    /// Drops the series of endpoints that are not live in `service`, and adds the others to the
    /// metric families of `text`.
    pub(super) fn render_into(&self, service: &str, text: String) -> String {
        let mut recorders = self.0.lock();
        recorders.retain(|endpoint, _| is_live(service, endpoint));
        let texts: Vec<_> = recorders.values().map(|recorder| recorder.handle().render()).collect();
        drop(recorders);
        merge(text, &texts)
    }
}

/// Splits a metric family into its `# TYPE` line and its samples.
fn parse_family(family: &str) -> Option<(&str, &str)> {
    let start = if family.starts_with("# TYPE ") { 0 } else { family.find("\n# TYPE ")? + 1 };
    family[start..].split_once('\n')
}

/// Adds the samples of `others` to the families of `text`: all samples of a family must be in one
/// group. Families are separated by empty lines.
fn merge(text: String, others: &[String]) -> String {
    let mut added: HashMap<&str, String> = HashMap::new();
    for (type_line, samples) in others.iter().flat_map(|other| other.split("\n\n")).filter_map(parse_family) {
        let samples = samples.lines().filter(|line| !line.is_empty());
        let family = added.entry(type_line).or_default();
        samples.for_each(|line| {
            let _ = writeln!(family, "{line}");
        });
    }
    if added.is_empty() {
        return text;
    }
    let mut merged = String::with_capacity(text.len() + added.values().map(String::len).sum::<usize>());
    for family in text.split("\n\n").map(|family| family.trim_matches('\n')).filter(|family| !family.is_empty()) {
        let samples = parse_family(family).and_then(|(type_line, _)| added.remove(type_line)).unwrap_or_default();
        let _ = writeln!(merged, "{family}\n{samples}");
    }
    for (type_line, samples) in added {
        let _ = writeln!(merged, "{type_line}\n{samples}");
    }
    merged
}

#[cfg(test)]
mod tests {
    use palisade_resilience::metrics::LiveLabel;

    use super::*;
    use crate::telemetry::registries::{Format, Registries};

    fn series(endpoint: &str) -> (metrics::Counter, metrics::Gauge) {
        let calls = metrics::counter!("calls", "endpoint" => endpoint.to_owned());
        (calls, metrics::gauge!("state", "endpoint" => endpoint.to_owned()))
    }

    #[test]
    fn series_of_gone_endpoints_are_removed() {
        let recorder = PrometheusBuilder::new().with_recommended_naming(true).build_recorder();
        let registries = Registries::new(vec![("gateway", recorder)]);
        let registry = registries.handles().remove(0);
        let shown = || registry.render(Format::Text).lines().filter(|line| line.contains("endpoint=")).count();
        metrics::with_local_recorder(&registries, || {
            let (target, _) = series("");
            target.increment(1);
            for generation in 0..40 {
                let label = LiveLabel::new(format!("removed:{generation}"));
                let (calls, state) = series(label.value());
                calls.increment(generation);
                state.set(1);
                let text = registry.render(Format::Text);
                let line = format!("calls_total{{endpoint=\"removed:{generation}\"}} {generation}");
                assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
                assert_eq!(shown(), 4, "the target's two series and those of the present endpoint");
            }
            assert_eq!(shown(), 2);
            // An endpoint that comes back starts again.
            let label = LiveLabel::new("removed:7");
            series(label.value()).0.increment(3);
            let text = registry.render(Format::Text);
            assert!(text.contains("calls_total{endpoint=\"removed:7\"} 3\n"), "{text}");
            let families = text.lines().filter(|line| line.starts_with("# TYPE calls_total ")).count();
            assert_eq!(families, 1, "{text}");
        });
    }

    #[test]
    fn samples_of_a_family_stay_together() {
        let text = "# HELP a of a\n# TYPE a counter\na{x=\"1\"} 1\n\n# TYPE b gauge\nb 2\n\n".to_owned();
        let others = ["# TYPE b gauge\nb{y=\"1\"} 3\n\n# TYPE c gauge\nc 4\n\n".to_owned()];
        let expected = "# HELP a of a\n# TYPE a counter\na{x=\"1\"} 1\n\n# TYPE b gauge\nb 2\nb{y=\"1\"} 3\n\n# TYPE c gauge\nc 4\n\n";
        assert_eq!(merge(text.clone(), &others), expected);
        assert_eq!(merge(text.clone(), &[]), text);
    }
}

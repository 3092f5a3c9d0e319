//! Change of a run against the baseline in `baselines/<scenario>.json`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Variable that replaces the baseline by this run.
const UPDATE: &str = "UPDATE_BASELINE";

/// Compared values of k6's summary: name, metric, statistic, unit.
const VALUES: [(&str, &str, &str, &str); 7] = [
    ("requests per second", "http_reqs", "rate", "/s"),
    ("median", "http_req_duration", "med", " ms"),
    ("p95", "http_req_duration", "p(95)", " ms"),
    ("p99", "http_req_duration", "p(99)", " ms"),
    ("rejected", "rejected", "rate", ""),
    ("unexpected responses", "unexpected_responses", "count", ""),
    ("dropped iterations", "dropped_iterations", "count", ""),
];

/// Values of a run, by name.
type Values = BTreeMap<String, f64>;

/// Renders the change of a run with this summary of k6 as JSON. Writes the baseline first if
/// `UPDATE_BASELINE` is set.
pub(super) fn markdown(scenario: &str, summary: &Path) -> io::Result<String> {
    let run = values(&serde_json::from_str(&fs::read_to_string(summary)?)?);
    let file = file(scenario);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&file, serde_json::to_string_pretty(&run)? + "\n")?;
    }
    let baseline = match fs::read_to_string(&file) {
        Ok(text) => Some(serde_json::from_str(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(compare(&run, baseline.as_ref()))
}

fn file(scenario: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("baselines").join(scenario).with_extension("json")
}

fn values(summary: &Value) -> Values {
    let values = VALUES.iter().map(|(name, metric, statistic, _)| {
        let value = summary["metrics"][metric]["values"][statistic].as_f64().unwrap_or_default();
        ((*name).to_owned(), (value * 1_000.0).round() / 1_000.0)
    });
    values.collect()
}

fn compare(run: &Values, baseline: Option<&Values>) -> String {
    let mut page = "## Change against the baseline\n\n".to_owned();
    let Some(baseline) = baseline else {
        return page + "No baseline of this scenario: `UPDATE_BASELINE=1` writes one.\n\n";
    };
    page.push_str("| value | baseline | this run | change |\n|---|---:|---:|---:|\n");
    for (name, _, _, unit) in VALUES {
        let [before, now] = [baseline, run].map(|values| values.get(name).copied().unwrap_or_default());
        let change = if before == 0.0 { format!("{:+}", now - before) } else { format!("{:+.0} %", 100.0 * (now - before) / before) };
        let _ = writeln!(page, "| {name} | {before}{unit} | {now}{unit} | {change} |");
    }
    page + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_is_relative_to_baseline() {
        let run = |p95: f64| values(&serde_json::json!({ "metrics": { "http_req_duration": { "values": { "p(95)": p95 } } } }));
        let page = compare(&run(15.0), Some(&run(10.0)));
        assert!(page.contains("| p95 | 10 ms | 15 ms | +50 % |"), "{page}");
        assert!(page.contains("| unexpected responses | 0 | 0 | +0 |"), "{page}");
        assert!(compare(&run(1.0), None).contains("No baseline"));
    }
}

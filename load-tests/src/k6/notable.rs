//! Slowest and failed requests of a run, with links to their traces.

use std::{collections::BTreeSet, fmt::Write};

use serde::Deserialize;

/// Variable with the address of Jaeger in the links of a report.
const JAEGER: &str = "JAEGER_URL";
const DEFAULT_JAEGER: &str = "http://localhost:16686";

/// Start of the message of `lib/notable_requests.ts`.
const PREFIX: &str = "notable request ";
/// Requests in each table of the report.
const SHOWN: usize = 10;

/// Request that a script noted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Notable {
    name: String,
    outcome: String,
    /// Milliseconds.
    duration: f64,
    trace: Option<String>,
    failed: bool,
}

/// Reads the requests from k6's output.
pub(super) fn read(output: &str) -> Vec<Notable> {
    output.lines().filter_map(message).filter_map(|message| serde_json::from_str(message.strip_prefix(PREFIX)?).ok()).collect()
}

/// Returns the output without the lines of notable requests.
pub(super) fn remove(output: &str) -> String {
    output
        .lines()
        .filter(|line| !message(line).is_some_and(|text| text.starts_with(PREFIX)))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Returns the message of a log line of k6 (logrus: `… msg="…" source=console`).
fn message(line: &str) -> Option<String> {
    let (quoted, _) = line.split_once("msg=")?.1.rsplit_once(" source=")?;
    serde_json::from_str(quoted).ok()
}

/// Renders the slowest and the failed requests.
pub(super) fn markdown(requests: &[Notable]) -> String {
    let jaeger = std::env::var(JAEGER).unwrap_or_else(|_| DEFAULT_JAEGER.to_owned());
    let mut slowest: Vec<_> = requests.iter().collect();
    slowest.sort_by(|a, b| b.duration.total_cmp(&a.duration));
    let failed: Vec<_> = requests.iter().filter(|request| request.failed).collect();
    let mut page = String::new();
    for (title, requests) in [("Slowest requests", slowest), ("Failed requests", failed)] {
        table(&mut page, title, &requests, &jaeger);
    }
    page
}

fn table(page: &mut String, title: &str, requests: &[&Notable], jaeger: &str) {
    let _ = writeln!(page, "## {title}\n");
    if requests.is_empty() {
        page.push_str("None.\n\n");
        return;
    }
    page.push_str("| route | outcome | duration | trace |\n|---|---|---:|---|\n");
    let mut seen = BTreeSet::new();
    let distinct = requests.iter().filter(|request| request.trace.as_ref().is_none_or(|trace| seen.insert(trace)));
    for Notable { name, outcome, duration, trace, .. } in distinct.take(SHOWN) {
        // Only hexadecimal digits: the header comes from the system under test.
        let trace = trace.as_ref().filter(|trace| trace.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let link = trace.map_or_else(|| "none".to_owned(), |trace| format!("[{trace}]({jaeger}/trace/{trace})"));
        let _ = writeln!(page, "| {name} | {outcome} | {duration:.1} ms | {link} |");
    }
    if requests.len() > SHOWN && title.starts_with("Failed") {
        let _ = writeln!(page, "\n{} more.", requests.len() - SHOWN);
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"
time="2026-01-01T00:00:00Z" level=info msg="notable request {\"name\":\"GET /orders/{id}\",\"outcome\":\"200\",\"duration\":12.5,\"trace\":\"0af7651916cd43dd8448eb211c80319c\",\"failed\":false}" source=console
time="2026-01-01T00:00:01Z" level=info msg="notable request {\"name\":\"POST /orders\",\"outcome\":\"internal\",\"duration\":99,\"failed\":true}" source=console
time="2026-01-01T00:00:01Z" level=warning msg="POST /orders: 500 \"oops\"" source=console
# load: FAILED
"#;

    #[test]
    fn notable_requests_link_to_traces() {
        let page = markdown(&read(OUTPUT));
        let (slowest, failed) = page.split_once("## Failed requests").unwrap();
        assert!(slowest.find("POST /orders").unwrap() < slowest.find("GET /orders/{id}").unwrap(), "{page}");
        assert!(slowest.contains("/trace/0af7651916cd43dd8448eb211c80319c) |"), "{page}");
        assert!(failed.contains("| POST /orders | internal | 99.0 ms | none |") && !failed.contains("GET"), "{page}");
    }

    #[test]
    fn output_has_other_lines_only() {
        let rest = remove(OUTPUT);
        assert!(!rest.contains(PREFIX) && rest.contains("oops") && rest.contains("# load: FAILED"), "{rest}");
    }
}

//! Grafana dashboards and metrics reference of Palisade, generated from the metric catalogs in
//! the code.
//!
//! A metric renamed in its catalog fails the generator here.
//!
//! `make dashboards` (`cargo run -p palisade-dashboards`) writes `dashboards/*.json` and
//! `docs/metrics.md`. Both are committed, and a test compares them with the generator's output.
//!
//! To add a panel, edit the dashboard's file in `boards/`: set the query, the description and the
//! remediation.
//!
//! ```
//! use palisade_dashboards::{panel::{timeseries, unit}, query::metric};
//!
//! let closed = timeseries("Connections closed / s")
//!     .description("Connections closed by a limit, by reason.")
//!     .remediation("`address`: one client opens too many. `drain`: requests outlast a shutdown.")
//!     .unit(unit::PER_SECOND)
//!     .query(metric("palisade.connections.closed").rate().sum_by(["job", "reason"]));
//! ```
//!
//! Job and instance filters, the rate interval and the legend are added automatically. Metric names
//! are catalog names, with dots. [`or_zero`](query::Query::or_zero) draws 0 before the first
//! event of a counter. [`share_of`](query::Query::share_of) builds an error ratio. A query that may
//! have no series in a healthy system is marked with
//! [`may_be_absent`](query::Query::may_be_absent). All others must return series, which the live
//! test verifies against a real Prometheus.

mod configuration_doc;
pub mod dashboard;
pub mod known_metrics;
pub mod panel;
pub mod promql_check;
pub mod query;
pub mod resolved_queries;

mod boards;
mod grafana;
mod metrics_doc;

use std::path::PathBuf;

use anyhow::{Context, bail};

pub use boards::all as dashboards;

/// Generated file.
#[derive(Debug, Clone)]
pub struct File {
    /// Path relative to the repository root.
    pub path: PathBuf,
    /// Complete content.
    pub text: String,
}

/// Generates all committed files. Fails if a query uses a metric or label that is in no catalog.
pub fn files() -> anyhow::Result<Vec<File>> {
    let known = known_metrics::Names::default();
    let mut wrong = Vec::new();
    for query in resolved_queries::queries_to_check() {
        let problems = promql_check::problems(&query.promql, &known);
        wrong.extend(problems.iter().map(|problem| format!("{}, {}: {problem}", query.dashboard, query.panel)));
    }
    if !wrong.is_empty() {
        bail!("queries with unknown metrics or labels:\n{}", wrong.join("\n"));
    }
    let mut files = vec![
        File { path: "docs/metrics.md".into(), text: metrics_doc::render()? },
        File { path: "docs/configuration.md".into(), text: configuration_doc::render() },
    ];
    for dashboard in dashboards() {
        let text = grafana::json(&dashboard).with_context(|| format!("dashboard {}", dashboard.name))?;
        files.push(File { path: format!("dashboards/{}.json", dashboard.name).into(), text });
    }
    Ok(files)
}

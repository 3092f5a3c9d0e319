//! The Grafana dashboards of Palisade and its page of metrics, written from the catalogues in the code: a metric renamed there fails here.
//!
//! `make dashboards` (`cargo run -p palisade-dashboards`) writes `dashboards/*.json` and `docs/metrics.md`; both are committed, and a test
//! compares them with what the program would write.
//!
//! To add a panel, go to the dashboard's file in `boards/` and say what it asks, what it tells, and what to do when it looks bad:
//!
//! ```
//! use palisade_dashboards::{panel::{graph, unit}, query::metric};
//!
//! let cut = graph("Connections cut / s")
//!     .tells("Connections that a limit put an end to, by reason.")
//!     .if_bad("`address`: one client opens too many. `drain`: requests outlast a shutdown.")
//!     .unit(unit::PER_SECOND)
//!     .query(metric("palisade.connections.cut").rate().sum_by(["job", "reason"]));
//! ```
//!
//! Jobs and instances, the interval of rates, and the legend come by themselves. Names are those of the catalogue, with dots. What a rate
//! does not have before its first event, [`or_zero`](query::Query::or_zero) shows as 0; a share of errors is
//! [`share_of`](query::Query::share_of). A query that may have no series in a healthy system says so by
//! [`sparse`](query::Query::sparse); all others must have some, and the live test asks a real Prometheus.

pub mod promql_check;
pub mod dashboard;
pub mod resolved_queries;
pub mod known_metrics;
pub mod panel;
pub mod query;

mod boards;
mod grafana;
mod metrics_doc;

use std::path::PathBuf;

use anyhow::{Context, bail};

pub use boards::all as dashboards;

/// A file that the program writes.
#[derive(Debug, Clone)]
pub struct File {
    /// Where, from the root of the repository.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// Everything that is committed. Fails if a query names what no catalogue has.
pub fn files() -> anyhow::Result<Vec<File>> {
    let known = known_metrics::Names::default();
    let mut wrong = Vec::new();
    for query in resolved_queries::checked() {
        let problems = promql_check::problems(&query.promql, &known);
        wrong.extend(problems.iter().map(|problem| format!("{}, {}: {problem}", query.dashboard, query.panel)));
    }
    if !wrong.is_empty() {
        bail!("queries that name what does not exist:\n{}", wrong.join("\n"));
    }
    let mut files = vec![File { path: "docs/metrics.md".into(), text: metrics_doc::text()? }];
    for dashboard in dashboards() {
        let text = grafana::json(&dashboard).with_context(|| format!("dashboard {}", dashboard.name))?;
        files.push(File { path: format!("dashboards/{}.json", dashboard.name).into(), text });
    }
    Ok(files)
}

//! Every query with its variables filled in, for a test that asks a real Prometheus.

use crate::{boards, grafana};

/// The job and instance that stand for all.
const EVERYTHING: &str = ".+";

/// A query as a Prometheus takes it.
#[derive(Debug, Clone)]
pub struct LiveQuery {
    /// The dashboard's name; empty for what all have.
    pub dashboard: &'static str,
    /// The panel's title.
    pub panel: &'static str,
    /// The query, without variables.
    pub promql: String,
    /// Why there may be no series in a healthy system under load; `None` if there must be some.
    pub sparse: Option<&'static str>,
}

/// The values of Grafana's variables of time.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// `$__rate_interval`: at least four times the interval of scrapes.
    pub rate: &'static str,
    /// `$__range`: all the time that is shown.
    pub range: &'static str,
}

impl Default for Windows {
    fn default() -> Self {
        Self { rate: "30s", range: "5m" }
    }
}

/// The queries of all panels, and of the annotations, for all jobs and instances. Names with colons are recorded by the rules in
/// `compose/prometheus/rules`: the Prometheus must have them.
pub fn queries(windows: Windows) -> Vec<LiveQuery> {
    let mut queries = Vec::new();
    for dashboard in boards::all() {
        for panel in dashboard.panels() {
            queries.extend(panel.queries.iter().map(|query| LiveQuery {
                dashboard: dashboard.name,
                panel: panel.title,
                promql: substitute_variables(query.promql(), windows),
                sparse: query.may_be_empty(),
            }));
        }
    }
    queries.extend(grafana::common_queries().into_iter().map(|(panel, promql)| LiveQuery {
        dashboard: "",
        panel,
        promql: substitute_variables(&promql, windows),
        sparse: (panel != "Variables").then_some("marks what happens seldom"),
    }));
    queries
}

/// Likewise, to be checked by their names.
pub(crate) fn checked() -> Vec<LiveQuery> {
    queries(Windows::default())
}

/// `promql` without variables.
pub fn substitute_variables(promql: &str, windows: Windows) -> String {
    let values = [("$__rate_interval", windows.rate), ("$__range", windows.range), ("$job", EVERYTHING), ("$instance", EVERYTHING)];
    values.iter().fold(promql.to_owned(), |promql, (variable, value)| promql.replace(variable, value))
}

//! Queries with resolved Grafana variables, for tests against a real Prometheus.

use crate::{boards, grafana};

/// Regular expression that replaces the `job` and `instance` variables.
const ANY_VALUE: &str = ".+";

/// Query that Prometheus can evaluate.
#[derive(Debug, Clone)]
pub struct ResolvedQuery {
    /// Name of the dashboard. Empty for queries shared by all dashboards.
    pub dashboard: &'static str,
    /// Title of the panel.
    pub panel: &'static str,
    /// Query text without variables.
    pub promql: String,
    /// Reason why a healthy system under load may have no series. `None` if series are required.
    pub absence_reason: Option<&'static str>,
}

/// Values of Grafana's time variables.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// `$__rate_interval`: at least four scrape intervals.
    pub rate: &'static str,
    /// `$__range`: the selected time range.
    pub range: &'static str,
}

impl Default for Windows {
    fn default() -> Self {
        Self { rate: "30s", range: "5m" }
    }
}

/// Returns the queries of all panels, variables and annotations, for all jobs and instances.
///
/// Names with colons come from the recording rules in `compose/prometheus/rules`, which Prometheus
/// must have loaded.
pub fn queries(windows: Windows) -> Vec<ResolvedQuery> {
    let mut queries = Vec::new();
    for dashboard in boards::all() {
        for panel in dashboard.panels() {
            queries.extend(panel.drawn_queries().iter().map(|query| ResolvedQuery {
                dashboard: dashboard.name,
                panel: panel.title,
                promql: substitute_variables(query.promql(), windows),
                absence_reason: query.absence_reason(),
            }));
        }
    }
    queries.extend(grafana::common_queries().into_iter().map(|(panel, promql)| ResolvedQuery {
        dashboard: "",
        panel,
        promql: substitute_variables(&promql, windows),
        absence_reason: (panel != "Variables").then_some("annotations mark rare events"),
    }));
    queries
}

/// Returns the same queries with default windows, for the PromQL check.
pub(crate) fn queries_to_check() -> Vec<ResolvedQuery> {
    queries(Windows::default())
}

/// Replaces the Grafana variables in `promql`.
pub fn substitute_variables(promql: &str, windows: Windows) -> String {
    let values = [("$__rate_interval", windows.rate), ("$__range", windows.range), ("$job", ANY_VALUE), ("$instance", ANY_VALUE)];
    values.iter().fold(promql.to_owned(), |promql, (variable, value)| promql.replace(variable, value))
}

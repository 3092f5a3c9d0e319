//! Dashboard variables: Prometheus data source, jobs, instances, Jaeger URL.

use serde::Serialize;

use super::{Datasource, PROMETHEUS};
use crate::boards::JOBS;

/// Dashboard variable.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Variable {
    Datasource(SimpleVariable),
    Labels(Box<LabelValues>),
    Text(SimpleVariable),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SimpleVariable {
    name: &'static str,
    label: &'static str,
    r#type: &'static str,
    query: &'static str,
    current: Current,
}

#[derive(Serialize)]
struct Current {
    text: &'static str,
    value: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LabelValues {
    name: &'static str,
    label: &'static str,
    r#type: &'static str,
    datasource: Datasource,
    definition: String,
    query: LabelQuery,
    multi: bool,
    include_all: bool,
    current: Current,
    /// 2: refresh when the time range changes.
    refresh: u8,
    /// 1: alphabetical.
    sort: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LabelQuery {
    query: String,
    ref_id: &'static str,
}

/// Returns all variables.
pub(super) fn all() -> Vec<Variable> {
    let [all, of_jobs] = series();
    let default_url = Current { text: "http://localhost:16686", value: "http://localhost:16686" };
    vec![
        Variable::Datasource(simple("datasource", "Prometheus", "datasource", "prometheus", Current { text: "default", value: "default" })),
        labels("job", "Job", &all),
        labels("instance", "Instance", &of_jobs),
        Variable::Text(simple("jaeger", "Jaeger", "textbox", default_url.value, default_url)),
    ]
}

/// Returns the selectors for the `job` and `instance` choices. `up` keeps processes that are down
/// in the list.
pub(super) fn series() -> [String; 2] {
    [format!("up{{job=~\"{JOBS}\"}}"), "up{job=~\"$job\"}".to_owned()]
}

fn simple(name: &'static str, label: &'static str, r#type: &'static str, query: &'static str, current: Current) -> SimpleVariable {
    SimpleVariable { name, label, r#type, query, current }
}

/// "All" expands to the listed values, not to `.+`: the same Prometheus may scrape other systems.
fn labels(name: &'static str, label: &'static str, series: &str) -> Variable {
    let query = format!("label_values({series}, {name})");
    Variable::Labels(Box::new(LabelValues {
        name,
        label,
        r#type: "query",
        datasource: PROMETHEUS,
        definition: query.clone(),
        query: LabelQuery { query, ref_id: "labels" },
        multi: true,
        include_all: true,
        current: Current { text: "All", value: "$__all" },
        refresh: 2,
        sort: 1,
    }))
}

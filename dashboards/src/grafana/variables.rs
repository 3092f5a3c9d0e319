//! What the reader chooses on top: the Prometheus, jobs, instances, and where Jaeger is.

use serde::Serialize;

use super::{Datasource, PROMETHEUS};
use crate::query::metric;

/// One choice.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Variable {
    Datasource(Simple),
    Labels(Box<LabelValues>),
    Text(Simple),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Simple {
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
    /// 2: when the time that is shown changes.
    refresh: u8,
    /// 1: by alphabet.
    sort: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LabelQuery {
    query: String,
    ref_id: &'static str,
}

/// All of them.
pub(super) fn all() -> Vec<Variable> {
    let [all, of_jobs] = series();
    let here = Current { text: "http://localhost:16686", value: "http://localhost:16686" };
    vec![
        Variable::Datasource(simple("datasource", "Prometheus", "datasource", "prometheus", Current { text: "default", value: "default" })),
        labels("job", "Job", &all),
        labels("instance", "Instance", &of_jobs),
        Variable::Text(simple("jaeger", "Jaeger", "textbox", here.value, here)),
    ]
}

/// The series whose labels are offered: every process of ours has them, and nobody else.
pub(super) fn series() -> [String; 2] {
    let name = metric("palisade.faults.active").name().to_owned();
    let of_jobs = format!("{name}{{job=~\"$job\"}}");
    [name, of_jobs]
}

fn simple(name: &'static str, label: &'static str, r#type: &'static str, query: &'static str, current: Current) -> Simple {
    Simple { name, label, r#type, query, current }
}

/// "All" is every value that is offered, not `.+`: others whom the same Prometheus scrapes are not ours.
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

//! Grafana's classic dashboard JSON (schema 42).
//!
//! Structs instead of `json!` keep the field order independent of `serde_json`'s features.

mod annotations;
mod options;
mod panel;
mod variables;

use serde::Serialize;

use self::{annotations::Annotation, panel::GridItem, variables::Variable};
use crate::dashboard::Dashboard;

/// Tag of every dashboard. Links between dashboards use it.
const TAG: &str = "palisade";

/// Serializes a dashboard as committed.
pub(crate) fn json(dashboard: &Dashboard) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&DashboardJson::from(dashboard)).map(|json| json + "\n")
}

/// Returns the queries shared by all dashboards, with names: variables and annotations.
pub(crate) fn common_queries() -> Vec<(&'static str, String)> {
    let annotations = annotations::all().into_iter().map(|annotation| (annotation.name, annotation.target.expr));
    variables::series().map(|series| ("Variables", series)).into_iter().chain(annotations).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DashboardJson {
    uid: String,
    title: &'static str,
    description: &'static str,
    tags: [&'static str; 1],
    schema_version: u32,
    version: u32,
    editable: bool,
    /// 1: the crosshair is shared by all panels.
    graph_tooltip: u8,
    timezone: &'static str,
    refresh: &'static str,
    time: Time,
    links: [DashboardLinks; 1],
    annotations: List<Annotation>,
    templating: List<Variable>,
    panels: Vec<GridItem>,
}

#[derive(Serialize)]
struct List<T> {
    list: Vec<T>,
}

#[derive(Serialize)]
struct Time {
    from: &'static str,
    to: &'static str,
}

/// Links to the other dashboards, at the top.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the JSON format is defined by Grafana")]
struct DashboardLinks {
    title: &'static str,
    r#type: &'static str,
    icon: &'static str,
    tooltip: &'static str,
    url: &'static str,
    tags: [&'static str; 1],
    as_dropdown: bool,
    include_vars: bool,
    keep_time: bool,
    target_blank: bool,
}

/// Prometheus data source selected by the dashboard variable.
#[derive(Serialize, Clone, Copy)]
struct Datasource {
    r#type: &'static str,
    uid: &'static str,
}

const PROMETHEUS: Datasource = Datasource { r#type: "prometheus", uid: "${datasource}" };

/// Query of a panel or an annotation.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    ref_id: String,
    datasource: Datasource,
    editor_mode: &'static str,
    expr: String,
    legend_format: String,
    format: &'static str,
    range: bool,
    instant: bool,
    /// Whether the panel shows exemplars, which link to traces.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    exemplar: bool,
}

impl From<&Dashboard> for DashboardJson {
    fn from(dashboard: &Dashboard) -> Self {
        let links = DashboardLinks {
            title: "Palisade",
            r#type: "dashboards",
            icon: "external link",
            tooltip: "Other dashboards, same time range and processes",
            url: "",
            tags: [TAG],
            as_dropdown: false,
            include_vars: true,
            keep_time: true,
            target_blank: false,
        };
        Self {
            uid: dashboard.uid(),
            title: dashboard.title,
            description: dashboard.description,
            tags: [TAG],
            schema_version: 42,
            version: 1,
            editable: false,
            graph_tooltip: 1,
            timezone: "browser",
            refresh: "10s",
            time: Time { from: "now-30m", to: "now" },
            links: [links],
            annotations: List { list: annotations::all() },
            templating: List { list: variables::all() },
            panels: panel::all(dashboard),
        }
    }
}

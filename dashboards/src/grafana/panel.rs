//! Panel JSON: grid position, field configuration, options and queries.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Datasource, PROMETHEUS, Target,
    options::{FieldOptions, PanelOptions},
};
use crate::{
    dashboard::{Dashboard, GridPlace, LayoutItem},
    panel::{Link, Panel, Visualization, unit},
    query::Query,
};

/// Item of the dashboard grid: row heading or panel.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum GridItem {
    Heading(Heading),
    Panel(Box<PanelJson>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heading {
    id: usize,
    r#type: &'static str,
    title: &'static str,
    collapsed: bool,
    grid_pos: GridPos,
    /// Panels of a collapsed row. Grafana expects those of an open row beside it.
    panels: Vec<PanelJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PanelJson {
    id: usize,
    r#type: &'static str,
    title: &'static str,
    description: String,
    datasource: Datasource,
    grid_pos: GridPos,
    field_config: FieldConfig,
    options: PanelOptions,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    transformations: Vec<Transformation>,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct GridPos {
    h: u32,
    w: u32,
    x: u32,
    y: u32,
}

#[derive(Serialize)]
struct FieldConfig {
    defaults: Defaults,
    overrides: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Defaults {
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_value: Option<&'static str>,
    color: Mode,
    thresholds: Thresholds,
    mappings: Vec<Mapping>,
    links: Vec<DataLink>,
    custom: FieldOptions,
}

#[derive(Serialize)]
struct Mode {
    mode: &'static str,
}

#[derive(Serialize)]
struct Thresholds {
    mode: &'static str,
    steps: Vec<ThresholdStep>,
}

#[derive(Serialize)]
struct ThresholdStep {
    color: &'static str,
    value: Option<f64>,
}

#[derive(Serialize)]
struct Mapping {
    r#type: &'static str,
    options: BTreeMap<String, ValueMapping>,
}

#[derive(Serialize)]
struct ValueMapping {
    text: &'static str,
    color: &'static str,
    index: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DataLink {
    title: String,
    url: String,
    target_blank: bool,
}

#[derive(Serialize)]
struct Transformation {
    id: &'static str,
    options: TransformOptions,
}

#[derive(Serialize)]
#[serde(untagged)]
enum TransformOptions {
    #[serde(rename_all = "camelCase")]
    Rename {
        regex: &'static str,
        rename_pattern: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    Organize {
        exclude_by_name: BTreeMap<&'static str, bool>,
        rename_by_name: BTreeMap<String, &'static str>,
    },
    Merge {},
}

/// Returns all items of a dashboard, numbered from 1.
pub(super) fn all(dashboard: &Dashboard) -> Vec<GridItem> {
    let mut last_id = 0;
    let mut next_id = || {
        last_id += 1;
        last_id
    };
    let mut items = Vec::new();
    for item in dashboard.layout() {
        let id = next_id();
        items.push(match item {
            LayoutItem::Panel(panel, place) => GridItem::Panel(Box::new(PanelJson::new(id, panel, place))),
            LayoutItem::Heading(title, place) => GridItem::Heading(Heading::new(id, title, place, None)),
            LayoutItem::Collapsed(title, place, panels) => {
                let panels = panels.into_iter().map(|(panel, place)| PanelJson::new(next_id(), panel, place)).collect();
                GridItem::Heading(Heading::new(id, title, place, Some(panels)))
            }
        });
    }
    items
}

impl Heading {
    fn new(id: usize, title: &'static str, place: GridPlace, collapsed: Option<Vec<PanelJson>>) -> Self {
        let is_collapsed = collapsed.is_some();
        Self { id, r#type: "row", title, collapsed: is_collapsed, grid_pos: place.into(), panels: collapsed.unwrap_or_default() }
    }
}

impl PanelJson {
    fn new(id: usize, panel: &Panel, place: GridPlace) -> Self {
        Self {
            id,
            r#type: panel.visualization.name(),
            title: panel.title,
            description: panel.markdown(),
            datasource: PROMETHEUS,
            grid_pos: place.into(),
            field_config: FieldConfig { defaults: Defaults::of(panel), overrides: [] },
            options: PanelOptions::of(panel),
            transformations: transformations(panel),
            targets: panel.drawn_queries().iter().zip('A'..).map(|(query, id)| target(panel, query, id)).collect(),
        }
    }
}

impl Visualization {
    /// Returns Grafana's panel type.
    fn name(self) -> &'static str {
        match self {
            Self::TimeSeries | Self::StackedTimeSeries => "timeseries",
            Self::Stat => "stat",
            Self::StateTimeline => "state-timeline",
            Self::Heatmap => "heatmap",
            Self::Table => "table",
        }
    }
}

fn target(panel: &Panel, query: &Query, id: char) -> Target {
    let format = match panel.visualization {
        Visualization::Heatmap => "heatmap",
        Visualization::Table => "table",
        _ => "time_series",
    };
    let instant = panel.visualization == Visualization::Table;
    Target {
        ref_id: id.to_string(),
        datasource: PROMETHEUS,
        editor_mode: "code",
        expr: query.promql().to_owned(),
        legend_format: query.legend(panel.title),
        format,
        range: !instant,
        instant,
        exemplar: has_exemplars(panel, query),
    }
}

/// Returns whether Prometheus has exemplars for the query: those of the buckets that it reads.
fn has_exemplars(panel: &Panel, query: &Query) -> bool {
    let shows_exemplars = matches!(panel.visualization, Visualization::TimeSeries | Visualization::Heatmap);
    shows_exemplars && query.promql().contains("_seconds_bucket")
}

/// Shortens gRPC method names to service and method, and removes non-label columns from tables.
fn transformations(panel: &Panel) -> Vec<Transformation> {
    if panel.visualization == Visualization::Table {
        let hidden: &[_] = if panel.columns.is_empty() { &["Time", "Value"] } else { &["Time"] };
        let exclude_by_name = hidden.iter().map(|name| (*name, true)).collect();
        let rename_by_name = panel.columns.iter().zip('A'..).map(|(name, query)| (format!("Value #{query}"), *name)).collect();
        let organize = Transformation { id: "organize", options: TransformOptions::Organize { exclude_by_name, rename_by_name } };
        let merge = (panel.queries.len() > 1).then_some(Transformation { id: "merge", options: TransformOptions::Merge {} });
        return merge.into_iter().chain([organize]).collect();
    }
    if panel.queries.iter().any(|query| query.legend("").contains("_method}}")) {
        let options = TransformOptions::Rename { regex: r"palisade\.\w+\.v\d+\.(\w+)Service/", rename_pattern: "$1/" };
        return vec![Transformation { id: "renameByRegex", options }];
    }
    Vec::new()
}

impl Defaults {
    fn of(panel: &Panel) -> Self {
        let by_value = matches!(panel.visualization, Visualization::Stat | Visualization::StateTimeline | Visualization::Table);
        let steps = panel.thresholds.iter().map(|step| ThresholdStep { color: step.color.name(), value: step.from });
        Self {
            unit: panel.unit,
            // Differences and remaining times may be negative, rates and sizes may not.
            min: matches!(panel.unit, unit::REQUESTS | unit::PER_SECOND | unit::PER_MINUTE | unit::BYTES).then_some(0),
            no_value: panel.no_value,
            color: Mode { mode: if by_value { "thresholds" } else { "palette-classic" } },
            thresholds: Thresholds { mode: "absolute", steps: steps.collect() },
            mappings: mappings(panel),
            links: panel.links.iter().map(DataLink::from).collect(),
            custom: FieldOptions::of(panel),
        }
    }
}

fn mappings(panel: &Panel) -> Vec<Mapping> {
    if panel.values.is_empty() {
        return Vec::new();
    }
    let mapping = |(index, &(value, text, color)): (usize, &(u8, &'static str, crate::panel::Color))| {
        (value.to_string(), ValueMapping { text, color: color.name(), index })
    };
    vec![Mapping { r#type: "value", options: panel.values.iter().enumerate().map(mapping).collect() }]
}

impl From<&Link> for DataLink {
    fn from(link: &Link) -> Self {
        // Dashboards open in the same tab, external links in a new one.
        Self { title: link.title.clone(), url: link.url.clone(), target_blank: !link.url.starts_with("/d/") }
    }
}

impl From<GridPlace> for GridPos {
    fn from(GridPlace { x, y, width, height }: GridPlace) -> Self {
        Self { h: height, w: width, x, y }
    }
}

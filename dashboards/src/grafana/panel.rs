//! A panel in Grafana's JSON: where it stands, how its field looks, what it draws with.

use serde::Serialize;

use super::{
    Datasource, PROMETHEUS, Target,
    options::{Custom, Options},
};
use crate::{
    dashboard::{Dashboard, Place, Placed},
    panel::{Visualization, Link, Panel, unit},
    query::Query,
};

/// What stands on a dashboard.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Item {
    Heading(Heading),
    Panel(Box<Drawn>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Heading {
    id: usize,
    r#type: &'static str,
    title: &'static str,
    collapsed: bool,
    grid_pos: GridPos,
    panels: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Drawn {
    id: usize,
    r#type: &'static str,
    title: &'static str,
    description: String,
    datasource: Datasource,
    grid_pos: GridPos,
    field_config: FieldConfig,
    options: Options,
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
    color: Mode,
    thresholds: Thresholds,
    mappings: Vec<Mapping>,
    links: Vec<DataLink>,
    custom: Custom,
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
    options: std::collections::BTreeMap<String, Meaning>,
}

#[derive(Serialize)]
struct Meaning {
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
    options: Change,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Change {
    #[serde(rename_all = "camelCase")]
    Rename { regex: &'static str, rename_pattern: &'static str },
    #[serde(rename_all = "camelCase")]
    Leave { exclude_by_name: std::collections::BTreeMap<&'static str, bool> },
}

/// Everything on a dashboard, numbered from 1.
pub(super) fn all(dashboard: &Dashboard) -> Vec<Item> {
    let numbered = dashboard.placed().into_iter().zip(1..);
    numbered
        .map(|(placed, id)| match placed {
            Placed::Heading(title, place) => {
                Item::Heading(Heading { id, r#type: "row", title, collapsed: false, grid_pos: place.into(), panels: [] })
            }
            Placed::Panel(panel, place) => Item::Panel(Box::new(Drawn::new(id, panel, place))),
        })
        .collect()
}

impl Drawn {
    fn new(id: usize, panel: &Panel, place: Place) -> Self {
        Self {
            id,
            r#type: panel.form.name(),
            title: panel.title,
            description: panel.markdown(),
            datasource: PROMETHEUS,
            grid_pos: place.into(),
            field_config: FieldConfig { defaults: Defaults::of(panel), overrides: [] },
            options: Options::of(panel),
            transformations: transformations(panel),
            targets: panel.queries.iter().zip('A'..).map(|(query, id)| target(panel, query, id)).collect(),
        }
    }
}

impl Visualization {
    /// Grafana's name of the panel that draws it.
    fn name(self) -> &'static str {
        match self {
            Self::Graph | Self::Stacked => "timeseries",
            Self::Number => "stat",
            Self::Timeline => "state-timeline",
            Self::Heatmap => "heatmap",
            Self::Table => "table",
        }
    }
}

fn target(panel: &Panel, query: &Query, id: char) -> Target {
    let format = match panel.form {
        Visualization::Heatmap => "heatmap",
        Visualization::Table => "table",
        _ => "time_series",
    };
    let instant = panel.form == Visualization::Table;
    Target {
        ref_id: id.to_string(),
        datasource: PROMETHEUS,
        editor_mode: "code",
        expr: query.promql().to_owned(),
        legend_format: query.legend(panel.title),
        format,
        range: !instant,
        instant,
    }
}

/// Method names without what is the same in all of them, and tables without what is no label.
fn transformations(panel: &Panel) -> Vec<Transformation> {
    if panel.form == Visualization::Table {
        let exclude_by_name = ["Time", "Value"].map(|name| (name, true)).into();
        return vec![Transformation { id: "organize", options: Change::Leave { exclude_by_name } }];
    }
    if panel.queries.iter().any(|query| query.legend("").contains("_method}}")) {
        let options = Change::Rename { regex: r"palisade\.\w+\.v\d+\.(\w+)Service/", rename_pattern: "$1/" };
        return vec![Transformation { id: "renameByRegex", options }];
    }
    Vec::new()
}

impl Defaults {
    fn of(panel: &Panel) -> Self {
        let by_value = matches!(panel.form, Visualization::Number | Visualization::Timeline | Visualization::Table);
        let steps = panel.steps.iter().map(|step| ThresholdStep { color: step.color.name(), value: step.from });
        Self {
            unit: panel.unit,
            // A difference or a time left may be below 0; a share or a rate is not.
            min: matches!(panel.unit, unit::REQUESTS | unit::PER_SECOND | unit::PER_MINUTE | unit::BYTES).then_some(0),
            color: Mode { mode: if by_value { "thresholds" } else { "palette-classic" } },
            thresholds: Thresholds { mode: "absolute", steps: steps.collect() },
            mappings: mappings(panel),
            links: panel.links.iter().map(DataLink::from).collect(),
            custom: Custom::of(panel),
        }
    }
}

fn mappings(panel: &Panel) -> Vec<Mapping> {
    if panel.values.is_empty() {
        return Vec::new();
    }
    let meaning = |(index, &(value, text, color)): (usize, &(u8, &'static str, crate::panel::Color))| {
        (value.to_string(), Meaning { text, color: color.name(), index })
    };
    vec![Mapping { r#type: "value", options: panel.values.iter().enumerate().map(meaning).collect() }]
}

impl From<&Link> for DataLink {
    fn from(link: &Link) -> Self {
        // Another dashboard takes this one's place; what leaves Grafana does not.
        Self { title: link.title.clone(), url: link.url.clone(), target_blank: !link.url.starts_with("/d/") }
    }
}

impl From<Place> for GridPos {
    fn from(Place { x, y, width, height }: Place) -> Self {
        Self { h: height, w: width, x, y }
    }
}

//! Grafana options per visualization.

use serde::Serialize;

use crate::panel::{Lines, Panel, Visualization, unit};

/// Field options (`fieldConfig.defaults.custom`).
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum FieldOptions {
    #[serde(rename_all = "camelCase")]
    Lines {
        draw_style: &'static str,
        line_width: u8,
        fill_opacity: u8,
        show_points: &'static str,
        span_nulls: bool,
        stacking: Mode,
        thresholds_style: Mode,
    },
    #[serde(rename_all = "camelCase")]
    States {
        line_width: u8,
        fill_opacity: u8,
    },
    Empty {},
}

#[derive(Serialize)]
pub(super) struct Mode {
    mode: &'static str,
}

/// Panel options.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum PanelOptions {
    TimeSeries {
        legend: Legend,
        tooltip: Tooltip,
    },
    #[serde(rename_all = "camelCase")]
    Stat {
        color_mode: &'static str,
        graph_mode: &'static str,
        justify_mode: &'static str,
        orientation: &'static str,
        reduce_options: Reduce,
        text_mode: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    StateTimeline {
        align_value: &'static str,
        merge_values: bool,
        row_height: f64,
        show_value: &'static str,
        legend: Legend,
        tooltip: Tooltip,
    },
    #[serde(rename_all = "camelCase")]
    Heatmap {
        calculate: bool,
        cell_gap: u8,
        cell_values: CellValues,
        color: Palette,
        legend: HeatmapLegend,
        tooltip: HeatmapTooltip,
        y_axis: Axis,
    },
    #[serde(rename_all = "camelCase")]
    Table {
        cell_height: &'static str,
        show_header: bool,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Legend {
    calcs: &'static [&'static str],
    display_mode: &'static str,
    placement: &'static str,
    #[serde(rename = "showLegend")]
    visible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort_desc: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct Tooltip {
    mode: &'static str,
    sort: &'static str,
}

#[derive(Serialize)]
pub(super) struct Reduce {
    calcs: [&'static str; 1],
    fields: &'static str,
    values: bool,
}

#[derive(Serialize)]
pub(super) struct CellValues {
    unit: &'static str,
}

#[derive(Serialize)]
pub(super) struct Palette {
    mode: &'static str,
    scheme: &'static str,
    exponent: f64,
    steps: u8,
}

#[derive(Serialize)]
pub(super) struct HeatmapLegend {
    show: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeatmapTooltip {
    mode: &'static str,
    y_histogram: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Axis {
    axis_placement: &'static str,
    unit: &'static str,
}

impl FieldOptions {
    pub(super) fn of(panel: &Panel) -> Self {
        match panel.visualization {
            Visualization::TimeSeries | Visualization::StackedTimeSeries => {
                let stacked = panel.visualization == Visualization::StackedTimeSeries;
                Self::Lines {
                    draw_style: "line",
                    line_width: 1,
                    fill_opacity: if stacked { 40 } else { 8 },
                    show_points: "never",
                    span_nulls: false,
                    stacking: Mode { mode: if stacked { "normal" } else { "none" } },
                    thresholds_style: Mode { mode: if panel.thresholds.len() > 1 { "dashed" } else { "off" } },
                }
            }
            Visualization::StateTimeline => Self::States { line_width: 0, fill_opacity: 80 },
            Visualization::Stat | Visualization::Heatmap | Visualization::Table => Self::Empty {},
        }
    }
}

impl PanelOptions {
    pub(super) fn of(panel: &Panel) -> Self {
        match panel.visualization {
            Visualization::TimeSeries | Visualization::StackedTimeSeries => Self::TimeSeries {
                legend: match panel.lines {
                    // Small panels use the compact legend to leave room for the graph.
                    _ if panel.height < 8 => LIST,
                    Lines::Highest => HIGHEST_FIRST,
                    Lines::Lowest => LOWEST_FIRST,
                },
                tooltip: ALL_LINES,
            },
            Visualization::Stat => Self::Stat {
                color_mode: "value",
                graph_mode: "area",
                justify_mode: "auto",
                orientation: "auto",
                reduce_options: Reduce { calcs: ["lastNotNull"], fields: "", values: false },
                text_mode: "auto",
            },
            Visualization::StateTimeline => Self::StateTimeline {
                align_value: "left",
                merge_values: true,
                row_height: 0.9,
                show_value: "auto",
                legend: LIST,
                tooltip: ALL_LINES,
            },
            Visualization::Heatmap => Self::Heatmap {
                calculate: false,
                cell_gap: 1,
                cell_values: CellValues { unit: unit::REQUESTS },
                color: Palette { mode: "scheme", scheme: "Oranges", exponent: 0.5, steps: 64 },
                legend: HeatmapLegend { show: false },
                tooltip: HeatmapTooltip { mode: "single", y_histogram: false },
                y_axis: Axis { axis_placement: "left", unit: panel.unit },
            },
            Visualization::Table => Self::Table { cell_height: "sm", show_header: true },
        }
    }
}

const LIST: Legend = Legend { calcs: &[], display_mode: "list", placement: "bottom", visible: true, sort_by: None, sort_desc: None };
const HIGHEST_FIRST: Legend =
    Legend { calcs: &["lastNotNull", "max"], display_mode: "table", sort_by: Some("Max"), sort_desc: Some(true), ..LIST };
const LOWEST_FIRST: Legend =
    Legend { calcs: &["lastNotNull", "min"], display_mode: "table", sort_by: Some("Min"), sort_desc: Some(false), ..LIST };
const ALL_LINES: Tooltip = Tooltip { mode: "multi", sort: "desc" };

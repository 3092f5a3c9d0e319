//! Grafana dashboard: rows of panels, laid out from left to right.

use crate::panel::Panel;

/// Column count of Grafana's grid.
const COLUMNS: u32 = 24;

/// Dashboard with rows of panels.
#[must_use]
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// File name and, prefixed with `palisade-`, the `uid`.
    pub name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// Row: a heading and its panels.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) panels: Vec<Panel>,
    pub(crate) collapsed: bool,
}

/// Position and size in columns and rows of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GridPlace {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Heading or panel with its position. The panels of a collapsed row belong to its heading.
#[derive(Debug, Clone)]
pub(crate) enum LayoutItem<'a> {
    Heading(&'static str, GridPlace),
    Collapsed(&'static str, GridPlace, Vec<(&'a Panel, GridPlace)>),
    Panel(&'a Panel, GridPlace),
}

impl Dashboard {
    /// Creates a dashboard without panels.
    pub fn new(name: &'static str, title: &'static str, description: &'static str) -> Self {
        Self { name, title, description, rows: Vec::new() }
    }

    /// Adds a row. Panels that do not fit into the grid's width continue on the next line.
    pub fn row(mut self, title: &'static str, panels: impl IntoIterator<Item = Panel>) -> Self {
        self.rows.push(Row { title, panels: panels.into_iter().collect(), collapsed: false });
        self
    }

    /// Adds a row that is collapsed at first.
    pub fn collapsed_row(mut self, title: &'static str, panels: impl IntoIterator<Item = Panel>) -> Self {
        self.rows.push(Row { title, panels: panels.into_iter().collect(), collapsed: true });
        self
    }

    /// Adds a collapsed row of a part that not every installation has. Its panels show "not
    /// configured" without data.
    pub fn optional_row(self, title: &'static str, panels: impl IntoIterator<Item = Panel>) -> Self {
        self.collapsed_row(title, panels.into_iter().map(|panel| panel.without_data("not configured")))
    }

    /// Returns the `uid` used by Grafana and by links.
    pub fn uid(&self) -> String {
        format!("palisade-{}", self.name)
    }

    /// Returns whether a panel has this title.
    pub fn has_panel(&self, title: &str) -> bool {
        self.panels().any(|panel| panel.title == title)
    }

    /// Returns all panels in reading order.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    /// Returns headings and panels with their positions.
    pub(crate) fn layout(&self) -> Vec<LayoutItem<'_>> {
        let mut items = Vec::new();
        let mut y = 0;
        for row in &self.rows {
            let heading = GridPlace { x: 0, y, width: COLUMNS, height: 1 };
            y += 1;
            let (panels, bottom) = row.layout(y);
            if row.collapsed {
                items.push(LayoutItem::Collapsed(row.title, heading, panels));
            } else {
                items.push(LayoutItem::Heading(row.title, heading));
                items.extend(panels.into_iter().map(|(panel, place)| LayoutItem::Panel(panel, place)));
                y = bottom;
            }
        }
        items
    }
}

impl Row {
    /// Returns the panels with their positions from `y` downwards, and the position below them.
    fn layout(&self, mut y: u32) -> (Vec<(&Panel, GridPlace)>, u32) {
        let (mut x, mut tallest) = (0, 0);
        let mut placed = Vec::new();
        for panel in &self.panels {
            let (width, height) = (panel.width, panel.height);
            if x + width > COLUMNS {
                (x, y, tallest) = (0, y + tallest, 0);
            }
            placed.push((panel, GridPlace { x, y, width, height }));
            x += width;
            tallest = tallest.max(height);
        }
        (placed, y + tallest)
    }
}

//! One dashboard: rows of panels, laid out from left to right.

use crate::panel::Panel;

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

/// One dashboard.
#[must_use]
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// Its file, and its `uid` behind `palisade-`.
    pub name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// Panels under a heading.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) panels: Vec<Panel>,
}

/// Where something stands, in columns and rows of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Something in its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Placed<'a> {
    Heading(&'static str, Place),
    Panel(&'a Panel, Place),
}

impl Dashboard {
    /// A dashboard without panels.
    pub fn new(name: &'static str, title: &'static str, about: &'static str) -> Self {
        Self { name, title, about, rows: Vec::new() }
    }

    /// Adds a row. Its panels stand beside each other as long as there is room, then below.
    pub fn row(mut self, title: &'static str, panels: impl IntoIterator<Item = Panel>) -> Self {
        self.rows.push(Row { title, panels: panels.into_iter().collect() });
        self
    }

    /// What Grafana and links know it by.
    pub fn uid(&self) -> String {
        format!("palisade-{}", self.name)
    }

    /// All panels, in the order in which they are read.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    /// Everything in its place.
    pub(crate) fn placed(&self) -> Vec<Placed<'_>> {
        let mut placed = Vec::new();
        let mut y = 0;
        for row in &self.rows {
            placed.push(Placed::Heading(row.title, Place { x: 0, y, width: COLUMNS, height: 1 }));
            y += 1;
            let (mut x, mut tallest) = (0, 0);
            for panel in &row.panels {
                let (width, height) = (panel.width, panel.height);
                if x + width > COLUMNS {
                    (x, y, tallest) = (0, y + tallest, 0);
                }
                placed.push(Placed::Panel(panel, Place { x, y, width, height }));
                x += width;
                tallest = tallest.max(height);
            }
            y += tallest;
        }
        placed
    }
}

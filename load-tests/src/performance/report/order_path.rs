//! Table of the order path.

use std::fmt::Write;

use super::{Report, Spread, wrap};
use crate::performance::{
    Round,
    order_path::{OrderLoad, OrderRow},
    system_under_test::{MONGO, POSTGRES},
};

impl OrderRow {
    /// Returns the median of a figure of the rounds.
    pub(super) fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        Spread::of(self.rounds.iter().map(figure)).median
    }

    /// Returns the CPU time per order of the services, microseconds.
    pub(super) fn own(&self) -> f64 {
        self.median(|round| round.services.values().sum())
    }

    /// Returns the CPU time per order of services and databases, microseconds.
    pub(super) fn all(&self) -> f64 {
        self.median(|round| round.services.values().chain(round.databases.values()).sum())
    }

    /// Returns the CPU time per order of a database server, microseconds.
    pub(super) fn database(&self, name: &str) -> f64 {
        self.median(|round| round.databases.get(name).copied().unwrap_or(f64::NAN))
    }
}

impl Report {
    /// Returns the row of a load, if it was measured.
    pub(super) fn order_row(&self, stores: &str, load: OrderLoad) -> Option<&OrderRow> {
        self.orders.iter().find(|row| row.stores == stores && row.load == load)
    }
}

pub(super) fn write(text: &mut String, report: &Report) {
    *text += "## Order path\n\n";
    wrap(
        text,
        "",
        "POST order by wrk, on stores that sync each commit. CPU time is per order, by all processes of a kind. Commits are shared by \
         concurrent orders (group commit, [design](design/order-path.md)), so syncs and CPU time per order fall as load rises.",
    );
    *text +=
        "\n| stores | load | orders/s | p50, ms | p99, ms | services, µs | PostgreSQL, µs | MongoDB, µs | context switches | syncs |\n";
    *text += "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in &report.orders {
        let database = |name| match row.database(name) {
            time if time.is_nan() => "–".to_owned(),
            time => format!("{time:.0}"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.1} | {:.1} | {:.0} | {} | {} | {:.1} | {:.2} |",
            row.stores,
            row.load,
            row.median(|round| round.rate),
            row.median(|round| round.p50),
            row.median(|round| round.p99),
            row.own(),
            database(POSTGRES),
            database(MONGO),
            row.median(|round| round.switches),
            row.syncs
        );
    }
    *text += "\n";
}

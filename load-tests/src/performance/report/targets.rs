//! Targets, and whether the run meets them.

use std::fmt::Write;

use super::{Report, Row, Spread, wrap};
use crate::performance::{
    load_generator::{CONNECTIONS, LoadGenerator},
    order_path::{OrderLoad, OrderRow},
    system_under_test::{BARE, FILES, HOP, POSTGRES, SERVERS},
};

/// CPU time of a bare hop on the machine for which the targets were set, microseconds.
const REFERENCE_HOP: f64 = 30.0;

/// Bound of a figure.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// What decides a figure besides the code.
#[derive(Clone, Copy)]
enum Depends {
    /// The speed of the processor: converted to the machine of the targets.
    CpuTime,
    /// The speed of the processor, inversely.
    Rate,
    /// A relation, a number, memory, or a time that the disk or a clock decides: taken as it is.
    AsMeasured,
}

/// Returns the median CPU time by wrk, microseconds.
fn own(report: &Report, stores: &str, telemetry: &str, route: &str) -> f64 {
    let same = |row: &&Row| (row.stores, row.telemetry, row.route, row.generator) == (stores, telemetry, route, LoadGenerator::Wrk);
    report.rows.iter().find(same).map_or(f64::NAN, |row| row.own().median)
}

/// Writes the table. A missing figure does not meet its target.
pub(super) fn write(text: &mut String, report: &Report) {
    let bare = own(report, HOP, BARE, "GET /check");
    *text += "## Targets and results\n\n";
    wrap(
        text,
        "",
        &format!(
            "The targets were set for two idle cores on which a bare hop takes {REFERENCE_HOP} µs (see Reference figures). In this run it \
             took {bare:.1} µs. The column `converted` has CPU times divided, and rates multiplied, by the relation of the two: this column \
             is compared with the target. Latencies are taken as measured, although they contain CPU time."
        ),
    );
    *text += "\n| metric | target | result | converted | met |\n|---|---:|---:|---:|---|\n";
    let mut line = |metric: &str, unit: &str, bound: Bound, depends: Depends, result: f64| {
        let converted = match depends {
            Depends::CpuTime => result * REFERENCE_HOP / bare,
            Depends::Rate => result * bare / REFERENCE_HOP,
            Depends::AsMeasured => result,
        };
        let (sign, target, met) = match bound {
            Bound::AtMost(target) => ('≤', target, converted <= target),
            Bound::AtLeast(target) => ('≥', target, converted >= target),
        };
        let met = if met { "yes" } else { "**NO**" };
        let digits = if target < 10.0 { 2 } else { usize::from(target < 100.0) };
        let converted = match depends {
            Depends::AsMeasured => "–".to_owned(),
            Depends::CpuTime | Depends::Rate => format!("{converted:.digits$} {unit}"),
        };
        let _ = writeln!(text, "| {metric} | {sign} {target} {unit} | {result:.digits$} {unit} | {converted} | {met} |");
    };
    order_path(report, &mut line);
    for (route, stores, target) in
        [("GET product", SERVERS, 140.0), ("GET product", FILES, 100.0), ("GET list", SERVERS, 200.0), ("GET list", FILES, 200.0)]
    {
        let metric = format!("CPU time of {route}, services only, {stores}, 10 % of traces, {CONNECTIONS} connections");
        line(&metric, "µs", Bound::AtMost(target), Depends::CpuTime, own(report, stores, "10 %", route));
    }
    let hop = own(report, HOP, "10 %", "GET /check") / bare;
    line("CPU time of a hop with all layers, 10 % of traces, relative to a bare hop", "×", Bound::AtMost(1.3), Depends::AsMeasured, hop);
    let maximum = report.memory.iter().filter(|memory| memory.stores != HOP).max_by(|one, other| one.loaded.total_cmp(&other.loaded));
    if let Some(maximum) = maximum {
        let metric =
            format!("memory of a process under load, maximum: {} on {}, telemetry {}", maximum.process, maximum.stores, maximum.telemetry);
        line(&metric, "MiB", Bound::AtMost(25.0), Depends::AsMeasured, maximum.loaded);
    }
    for (start, times) in [("first start", &report.start_up.first), ("start with existing data", &report.start_up.with_data)] {
        let median = Spread::of(times.iter().copied()).median;
        line(&format!("time to the first 200, {FILES}, {start}"), "ms", Bound::AtMost(50.0), Depends::AsMeasured, median);
    }
    *text += "\n";
}

fn order_path(report: &Report, line: &mut impl FnMut(&str, &str, Bound, Depends, f64)) {
    let figure = |stores, load, figure: &dyn Fn(&OrderRow) -> f64| report.order_row(stores, load).map_or(f64::NAN, figure);
    let rate = |row: &OrderRow| row.median(|round| round.rate);
    let many = |stores, name: &str| format!("{name}, {stores}, {CONNECTIONS} connections");
    line(&many(FILES, "orders per second"), "/s", Bound::AtLeast(2_000.0), Depends::Rate, figure(FILES, OrderLoad::Spread, &rate));
    for (stores, target) in [(FILES, 700.0), (SERVERS, 500.0)] {
        let own = figure(stores, OrderLoad::Spread, &OrderRow::own);
        line(&many(stores, "CPU time of an order, services only"), "µs", Bound::AtMost(target), Depends::CpuTime, own);
    }
    let postgres = figure(SERVERS, OrderLoad::Spread, &|row| row.database(POSTGRES));
    line(&many(SERVERS, "CPU time of an order, PostgreSQL"), "µs", Bound::AtMost(400.0), Depends::CpuTime, postgres);
    let switches = figure(FILES, OrderLoad::Spread, &|row| row.median(|round| round.switches));
    line(&many(FILES, "context switches of an order"), "", Bound::AtMost(25.0), Depends::AsMeasured, switches);
    line(
        &many(FILES, "file syncs of an order"),
        "",
        Bound::AtMost(0.1),
        Depends::AsMeasured,
        figure(FILES, OrderLoad::Spread, &|row| row.syncs),
    );
    for (stores, p50, p99) in [(FILES, 1.95, 4.45), (SERVERS, 5.4, 9.55)] {
        let median = figure(stores, OrderLoad::Alone, &|row| row.median(|round| round.p50));
        line(&format!("latency of an order, {stores}, 1 connection, p50"), "ms", Bound::AtMost(p50), Depends::AsMeasured, median);
        let tail = figure(stores, OrderLoad::Alone, &|row| row.median(|round| round.p99));
        line(&format!("latency of an order, {stores}, 1 connection, p99"), "ms", Bound::AtMost(p99), Depends::AsMeasured, tail);
        let syncs = figure(stores, OrderLoad::Alone, &|row| row.syncs);
        line(&format!("file syncs of an order, {stores}, 1 connection"), "", Bound::AtMost(3.0), Depends::AsMeasured, syncs);
        let hot = figure(stores, OrderLoad::Hot, &rate) / figure(stores, OrderLoad::Spread, &rate);
        line(
            &many(stores, "orders per second of one product, relative to 50 products"),
            "×",
            Bound::AtLeast(1.0),
            Depends::AsMeasured,
            hot,
        );
        let growth = figure(stores, OrderLoad::Grown, &OrderRow::all) / figure(stores, OrderLoad::Spread, &OrderRow::all);
        line(
            &many(stores, "CPU time of an order after 100 000 orders, relative to the first ones"),
            "×",
            Bound::AtMost(1.1),
            Depends::AsMeasured,
            growth,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::performance::{Host, Memory, Round, StartUp};

    fn round(own: f64, rate: f64) -> Round {
        let (services, databases) = ([("gateway", own)].into(), [(POSTGRES, 2.0 * own)].into());
        Round { services, databases, switches: 1.0, rate, deferred: 0.0, p50: 1.0, p99: 1.0 }
    }

    fn row(stores: &'static str, telemetry: &'static str, route: &'static str, figures: [f64; 3]) -> Row {
        Row { stores, telemetry, route, generator: LoadGenerator::Wrk, rounds: figures.map(|own| round(own, 1.0)).into() }
    }

    fn orders(stores: &'static str, load: OrderLoad, rate: f64) -> OrderRow {
        OrderRow { stores, load, rounds: [190.0, 200.0, 300.0].map(|own| round(own, rate)).into(), syncs: 0.1 }
    }

    #[test]
    fn targets_are_compared_with_the_median() {
        let rows = vec![
            row(SERVERS, "10 %", "GET product", [70.0, 278.0, 300.0]),
            row(FILES, "10 %", "GET product", [70.0, 202.0, 204.0]),
            row(HOP, BARE, "GET /check", [60.0, 60.0, 60.0]),
            row(HOP, "10 %", "GET /check", [72.0, 78.0, 84.0]),
        ];
        let start_up = StartUp { first: vec![40.0], with_data: vec![60.0], resident: 9.0 };
        let memory = vec![Memory { stores: FILES, telemetry: "off", process: "orders", idle: 9.0, loaded: 26.0 }];
        let orders = vec![
            orders(SERVERS, OrderLoad::Spread, 100.0),
            orders(SERVERS, OrderLoad::Hot, 99.0),
            orders(FILES, OrderLoad::Spread, 1_000.0),
            orders(FILES, OrderLoad::Grown, 1.0),
        ];
        let page = super::super::page(&Report { host: Host::read(), seconds: 1, foreign_share: 0.1, start_up, rows, memory, orders });
        let row_with = |part: &str| page.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {page}"));
        assert!(row_with("| ≤ 140 µs | 278 µs | 139 µs |").ends_with("| yes |"));
        assert!(row_with("| ≤ 100 µs | 202 µs | 101 µs |").ends_with("| **NO** |"));
        // A missing measurement does not meet a target.
        assert!(row_with("| ≤ 200 µs | NaN µs | NaN µs |").ends_with("| **NO** |"));
        assert!(row_with("| ≤ 1.3 × | 1.30 × | – |").ends_with("| yes |"));
        assert!(row_with("| ≥ 2000 /s | 1000 /s | 2000 /s |").ends_with("| yes |"));
        assert!(row_with("an order, PostgreSQL").ends_with("| ≤ 400 µs | 400 µs | 200 µs | yes |"));
        assert!(row_with("| ≥ 1 × | 0.99 × | – |").ends_with("| **NO** |"));
        assert!(row_with("| ≤ 1.1 × | 1.00 × | – |").ends_with("| yes |"));
        assert!(row_with("orders on SQLite").ends_with("| 26.0 MiB | – | **NO** |"));
        assert!(row_with(", first start |").ends_with("| 40.0 ms | – | yes |"));
        assert!(row_with("existing data | ≤").ends_with("| 60.0 ms | – | **NO** |"));
        assert!(row_with("| SQLite | 64 connections, 50 products | 1000 |").contains("| – | 1.0 | 0.10 |"));
    }
}

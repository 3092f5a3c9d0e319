//! The page: what was measured beside what is wanted.

use std::fmt::Write;

use super::{
    Report, ROUNDS, Row,
    system_under_test::{BARE, CACHED, FILES, HOP, READS, SERVERS},
    load_generator::{CONNECTIONS, Tool},
};

/// Microseconds of CPU time per request of our own processes, on servers, with telemetry, by wrk.
const WANTED: [(&str, f64); 2] = [("GET product", 77.0), ("POST order", 260.0)];
/// What a bare hop took where those were set.
const HOP_ELSEWHERE: f64 = 30.0;
/// Resident memory of a process under load, MiB.
const WANTED_MEMORY: f64 = 25.0;
/// From start to the first 200, milliseconds.
const WANTED_START: f64 = 50.0;
/// Figures that were taken elsewhere, at 64 connections on two cores of this kind.
const ELSEWHERE: &str = "\
A bare axum → tonic hop takes 30 µs (19 + 11) and 31 MiB for both processes; a NestJS build of the same shop takes 366 to 1 529 µs for GET product and 1 466 to 4 548 µs for
an order of one line. These were measured apart from this run, at 64 connections, on two cores of this kind.";

/// The middle one, the least and the most of some figures.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<_> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), least: at(0), most: at(sorted.len().saturating_sub(1)) }
    }
}

impl Row {
    fn own(&self) -> Spread {
        Spread::of(self.rounds.iter().map(|round| round.own.values().sum()))
    }

    fn of(&self, process: &str) -> f64 {
        Spread::of(self.rounds.iter().map(|round| round.own.get(process).copied().unwrap_or(0.0))).median
    }

    fn databases(&self) -> f64 {
        Spread::of(self.rounds.iter().map(|round| round.databases)).median
    }

    fn rate(&self) -> f64 {
        Spread::of(self.rounds.iter().map(|round| round.rate)).median
    }

    fn latency(&self) -> [f64; 2] {
        [Spread::of(self.rounds.iter().map(|round| round.p50)).median, Spread::of(self.rounds.iter().map(|round| round.p99)).median]
    }
}

/// The whole page, in Markdown.
pub fn page(measured: &Report) -> String {
    let mut text = String::from("# Performance\n\nWritten by `make performance`, from one run; change nothing here by hand.\n\n");
    targets(&mut text, measured);
    method(&mut text, measured);
    for tool in [Tool::Wrk, Tool::K6] {
        requests(&mut text, measured, tool);
    }
    hop(&mut text, measured);
    memory(&mut text, measured);
    start_up(&mut text, measured);
    text += "## Figures of others\n\n";
    text += ELSEWHERE;
    text += "\n";
    text
}

// Writing to a string cannot fail: its results are let go.

/// Microseconds by wrk.
fn own(measured: &Report, stores: &str, telemetry: &str, route: &str) -> f64 {
    let is_it = |row: &&Row| (row.stores, row.telemetry, row.route, row.tool) == (stores, telemetry, route, Tool::Wrk);
    measured.rows.iter().find(is_it).map_or(f64::NAN, |row| row.own().median)
}

fn targets(text: &mut String, measured: &Report) {
    *text += "## Wanted and measured\n\n| | wanted | measured | |\n|---|---:|---:|---|\n";
    let mut line = |what: String, unit: &str, wanted: f64, found: f64| {
        let kept = if found <= wanted { "yes" } else { "**NO**" };
        // Whole microseconds, tenths of a hop.
        let digits = usize::from(wanted < 10.0);
        let _ = writeln!(text, "| {what} | ≤ {wanted:.digits$} {unit} | {found:.1} {unit} | {kept} |");
    };
    for (route, wanted) in WANTED {
        for telemetry in ["10 %", "100 %"] {
            let found = own(measured, SERVERS, telemetry, route);
            let what = format!("CPU time of {route}, own processes, {SERVERS}, {telemetry} of the traces, {CONNECTIONS} connections");
            line(what, "µs", wanted, found);
        }
    }
    for (route, wanted) in WANTED {
        let found = own(measured, SERVERS, "10 %", route) / own(measured, HOP, BARE, "GET /check");
        line(format!("the same of {route}, 10 % of the traces, in bare hops of this run"), "hops", wanted / HOP_ELSEWHERE, found);
    }
    let most = measured.memory.iter().filter(|memory| memory.stores != HOP).max_by(|one, other| one.loaded.total_cmp(&other.loaded));
    if let Some(most) = most {
        let what =
            format!("memory of a process under load; the largest is {} on {}, telemetry {}", most.process, most.stores, most.telemetry);
        line(what, "MiB", WANTED_MEMORY, most.loaded);
    }
    for (what, times) in [("the first start", &measured.start_up.first), ("a start on data that is there", &measured.start_up.again)] {
        line(format!("from start to the first 200, {FILES}, {what}"), "ms", WANTED_START, Spread::of(times.iter().copied()).median);
    }
    *text += "\n";
}

fn method(text: &mut String, measured: &Report) {
    let machine = &measured.machine;
    let later = measured.rows.iter().flat_map(|row| &row.rounds).map(|round| round.later).fold(0.0, f64::max);
    let virtually = if machine.hypervisor { " (a virtual machine)" } else { "" };
    let _ = writeln!(
        text,
        "## How\n\n\
         - Machine: {}, {} cores{virtually}, {:.0} GiB, Linux {}; load average {} before the run. Load, services and databases share the cores.\n\
         - Noise: {:.0} % of the machine's CPU time went to others while this ran. Each figure is the median of {ROUNDS} rounds of {} s, and the\n  \
         spread is the least and the most of them. Everything runs at once and the rounds go from one to the next, so that the same noise is in all of them:\n  \
         differences between lines say more than the figures themselves.\n\
         - CPU time is user and system time of the server processes by the kernel's own count, over requests answered. Every answer was right, or there\n  \
         would be no page; {:.1} % of the orders of the worst round were answered by 202, which leaves work for after the round. It falls as load rises:\n  \
         compare only at equal load.\n\
         - Where the stores are slow the services have little to do, and each request wakes them from sleep: an order is then dear for the same reason that GET product\n  \
         by k6 is several times as dear as by wrk. The rate beside each figure says which load it was measured at.\n\
         - wrk sends what {CONNECTIONS} connections can carry; k6 sends at a fixed rate, the same for all lines of a route.\n\
         - Built with the profile `dist`, as the containers are.\n\
         - A start has up to 200 ms in it that `quanta`, the clock of the Prometheus exporter, takes to learn the speed of the processor's counter. How long\n  \
           it takes is the processor's affair: on the same machine some starts have next to nothing of it.\n\
         - Limits are out of the way: rate limits at 1 000 000 a second, 1 000 requests at once. They work, and let everything pass.\n\
         - Telemetry: `off` has no collector; else a collector in a process of its own takes this share of the traces over OTLP. Metrics are always on.\n\
         - {SERVERS} is a real PostgreSQL with `fsync` on, and a stand-in that speaks MongoDB's protocol and does not sync here: it would sync\n  \
         each write alone, where MongoDB syncs those of many callers at once. What products itself spends is right, what the database column has\n  \
         of that store is not MongoDB's. SQLite's work is in the services themselves.\n\
         - `{CACHED}`: the gateway keeps what is read for 5 s (`cache.ttl_ms`), and nobody tells it of changes.\n\
         - An order is of one line, of 50 products in turn, each with an idempotency key of its own; GET product asks for one product, the list for 20.\n",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        machine.load,
        100.0 * measured.steal_share,
        measured.seconds,
        100.0 * later
    );
}

fn requests(text: &mut String, measured: &Report, tool: Tool) {
    let how = match tool {
        Tool::Wrk => format!("{CONNECTIONS} connections"),
        Tool::K6 => "a fixed rate".to_owned(),
    };
    let _ = writeln!(text, "## CPU time per request, by {tool}: {how}\n");
    *text +=
        "| request | stores | telemetry | own, µs | spread | gateway | products | orders | databases | requests/s | p50, ms | p99, ms |\n";
    *text += "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    let mut rows: Vec<_> = measured.rows.iter().filter(|row| row.stores != HOP && row.tool == tool).collect();
    // Stable: the order of the run within each.
    rows.sort_by_key(|row| (row.route != "GET product", row.route != "GET list", row.stores == SERVERS));
    for row in rows {
        let (own, [p50, p99]) = (row.own(), row.latency());
        let databases = if row.stores == SERVERS { format!("{:.0}", row.databases()) } else { "–".to_owned() };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} | {:.0} – {:.0} | {:.0} | {:.0} | {:.0} | {databases} | {:.0} | {p50:.1} | {p99:.1} |",
            row.route,
            row.stores,
            row.telemetry,
            own.median,
            own.least,
            own.most,
            row.of("gateway"),
            row.of("products"),
            row.of("orders"),
            row.rate()
        );
    }
    *text += "\n";
}

fn hop(text: &mut String, measured: &Report) {
    *text += "## The middleware on and off\n\n\
              A hop without a store: an axum handler that makes one tonic call, as a stranger would write it, and the same two handlers with both server stacks and the\n\
              client stack around them, tokens verified and minted. The second line is the least that GET product can cost: nothing but the hop and the driver.\n\n\
              | | by | µs | spread | gateway | backend | times bare | requests/s |\n|---|---|---:|---:|---:|---:|---:|---:|\n";
    for tool in [Tool::Wrk, Tool::K6] {
        let rows = || measured.rows.iter().filter(|row| row.stores == HOP && row.tool == tool);
        let bare = rows().find(|row| row.telemetry == BARE).map_or(f64::NAN, |row| row.own().median);
        for row in rows() {
            let own = row.own();
            let what = if [BARE, READS].contains(&row.telemetry) {
                row.telemetry.to_owned()
            } else {
                format!("all layers, telemetry {}", row.telemetry)
            };
            let _ = writeln!(
                text,
                "| {what} | {tool} | {:.1} | {:.1} – {:.1} | {:.1} | {:.1} | {:.2} | {:.0} |",
                own.median,
                own.least,
                own.most,
                row.of("gateway"),
                row.of("backend"),
                own.median / bare,
                row.rate()
            );
        }
    }
    *text += "\n";
}

fn memory(text: &mut String, measured: &Report) {
    *text += "## Memory\n\nResident, MiB: before any load, and the most that was seen under it.\n\n\
              | stores | telemetry | process | idle | under load |\n|---|---|---|---:|---:|\n";
    for memory in &measured.memory {
        let _ =
            writeln!(text, "| {} | {} | {} | {:.1} | {:.1} |", memory.stores, memory.telemetry, memory.process, memory.idle, memory.loaded);
    }
    *text += "\n";
}

fn start_up(text: &mut String, measured: &Report) {
    *text += "## Start\n\nAll three services in one process on SQLite, from the start of the program to the first `GET /products` that is answered with 200.\n\n\
              | | median, ms | spread |\n|---|---:|---:|\n";
    for (what, times) in [("databases are made first", &measured.start_up.first), ("on data that is there", &measured.start_up.again)] {
        let took = Spread::of(times.iter().copied());
        let _ = writeln!(text, "| {what} | {:.0} | {:.0} – {:.0} |", took.median, took.least, took.most);
    }
    let _ = writeln!(text, "\nIt has {:.1} MiB then.\n", measured.start_up.resident);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::performance::{Machine, Memory, Round, StartUp};

    fn row(stores: &'static str, telemetry: &'static str, route: &'static str, figures: [f64; 3]) -> Row {
        let round = |own: f64| Round { own: [("gateway", own)].into(), databases: 0.0, rate: 1.0, later: 0.0, p50: 1.0, p99: 1.0 };
        Row { stores, telemetry, route, tool: Tool::Wrk, rounds: figures.map(round).into() }
    }

    #[test]
    fn a_target_is_kept_by_the_median_and_missed_aloud() {
        let rows = vec![
            row(SERVERS, "10 %", "GET product", [70.0, 76.0, 300.0]),
            row(SERVERS, "100 %", "GET product", [70.0, 78.0, 79.0]),
            row(SERVERS, "10 %", "POST order", [250.0, 259.0, 261.0]),
        ];
        let start_up = StartUp { first: vec![40.0], again: vec![60.0], resident: 9.0 };
        let memory = vec![Memory { stores: FILES, telemetry: "off", process: "orders", idle: 9.0, loaded: 26.0 }];
        let page = page(&Report { machine: Machine::here(), seconds: 1, steal_share: 0.1, start_up, rows, memory });
        let verdict = |part: &str| page.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {page}"));
        assert!(verdict("| ≤ 77 µs | 76.0 µs |").ends_with("| yes |"));
        assert!(verdict("| ≤ 77 µs | 78.0 µs |").ends_with("| **NO** |"));
        assert!(verdict("| ≤ 260 µs | 259.0 µs |").ends_with("| yes |"));
        // What was not measured is not kept.
        assert!(verdict("| ≤ 260 µs | NaN µs |").ends_with("| **NO** |"));
        assert!(verdict("orders on SQLite").ends_with("| 26.0 MiB | **NO** |"));
        assert!(verdict("the first start").ends_with("| 40.0 ms | yes |"));
        assert!(verdict("data that is there | ≤").ends_with("| 60.0 ms | **NO** |"));
    }
}

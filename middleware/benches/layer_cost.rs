//! Cost table of `middleware/README.md`: instructions, allocations and time of every case, minus
//! those of a call without layers.
//!
//! `cargo bench -p palisade-middleware --bench layer_cost` prints it; `-- --write` also writes it
//! to the README. Instructions are counted by callgrind (Debian package `valgrind`), in which the
//! program runs itself once per case; they do not depend on the load of the machine. The time is
//! the last result of `--bench layers` (criterion), if there is one.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "developer tool")]

#[path = "cases/all.rs"]
mod cases;
#[path = "cases/readme_table.rs"]
mod readme_table;

use std::{alloc::System, env, fmt::Write, fs, path::Path, process::Command};

use cases::{Case, Group, Side};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Warm-up calls before a measurement: fill caches and look up metric handles.
const WARM_UP: u32 = 200;
const CALLS: u32 = 1_000;

struct Cost {
    allocations: f64,
    instructions: Option<f64>,
    nanoseconds: Option<f64>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    let _runtime_context = runtime.enter();
    let arguments: Vec<String> = env::args().collect();
    let value = |flag: &str| arguments.iter().position(|argument| argument == flag).and_then(|at| arguments.get(at + 1));
    if let Some(name) = value("--case") {
        let mut case = cases::all().into_iter().find(|case| case.name == name).expect("known case");
        repeat(&mut case, WARM_UP);
        measured(&mut case);
        return;
    }
    let table = table();
    println!("{table}");
    if arguments.iter().any(|argument| argument == "--write") {
        readme_table::write("cost", &table);
    }
}

fn repeat(case: &mut Case, calls: u32) {
    for _ in 0..calls {
        (case.run_once)();
    }
}

/// Callgrind collects only within this function.
#[inline(never)]
fn measured(case: &mut Case) {
    repeat(case, CALLS);
}

fn table() -> String {
    let costs: Vec<(&'static str, Group, Cost)> =
        cases::all().into_iter().map(|mut case| (case.name, case.group, cost(&mut case))).collect();
    let baseline = |side: Side| costs.iter().find(|(_, group, _)| *group == Group::Baseline(side)).map(|(.., cost)| cost);
    let mut table = String::from("| | instructions | allocations | ns |\n|---|---:|---:|---:|\n");
    for (name, group, cost) in &costs {
        let baseline = match *group {
            Group::Component | Group::Baseline(_) => None,
            Group::Layer(side) | Group::Stack(side) => baseline(side),
        };
        // A negative difference is noise.
        let above_baseline = |of: fn(&Cost) -> Option<f64>| Some((of(cost)? - baseline.and_then(of).unwrap_or(0.0)).max(0.0));
        let formatted = |value: Option<f64>, digits: usize| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"));
        let (instructions, allocations, time) = (
            above_baseline(|cost| cost.instructions),
            above_baseline(|cost| Some(cost.allocations)),
            above_baseline(|cost| cost.nanoseconds),
        );
        let (instructions, allocations, time) = (formatted(instructions, 0), formatted(allocations, 1), formatted(time, 0));
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {name} | {instructions} | {allocations} | {time} |");
    }
    table
}

fn cost(case: &mut Case) -> Cost {
    repeat(case, WARM_UP);
    let region = Region::new(ALLOCATOR);
    measured(case);
    let change = region.change();
    #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
    let allocations = (change.allocations + change.reallocations) as f64 / f64::from(CALLS);
    Cost { allocations, instructions: instructions(case.name), nanoseconds: nanoseconds(case.group, case.name) }
}

/// Instructions per call; `None` without valgrind.
fn instructions(name: &str) -> Option<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no", "--toggle-collect=*layer_cost::measured*"])
        .arg(env::current_exe().ok()?)
        .args(["--case", name])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected: f64 = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())?;
    Some(collected / f64::from(CALLS))
}

/// Median time of the last criterion run.
fn nanoseconds(group: Group, name: &str) -> Option<f64> {
    let folder = format!("{group:?}/{}", name.replace([':', '/', '"'], "_"));
    let root = env::current_exe().ok()?.ancestors().find(|folder| folder.ends_with("target")).map(Path::to_owned)?;
    let text = fs::read_to_string(root.join("criterion").join(folder).join("new/estimates.json")).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["median"]["point_estimate"].as_f64()
}

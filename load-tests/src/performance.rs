//! What the shop costs: CPU time per request and memory, by wrk and by k6, beside a bare hop in the same run.
//!
//! All processes run at once, and the load goes to one set of them after the other in short rounds, so that whatever else the machine does is in all
//! figures.

mod collector;
mod host;
mod report;
mod cpu_usage;
mod baseline_read;
mod start_up;
mod system_under_test;
mod load_generator;

use std::{collections::BTreeMap, time::Duration};

pub use collector::collect;
pub use host::Machine;
pub use report::page;
pub use baseline_read::read;
pub use start_up::StartUp;
pub use system_under_test::Subjects;

use self::{
    cpu_usage::{Usage, Sampler},
    load_generator::Tool,
};

/// Rounds that count; one before them fills caches and connections.
pub const ROUNDS: usize = 3;

/// What a run found.
#[derive(Debug)]
pub struct Report {
    machine: Machine,
    seconds: u64,
    /// CPU time of everything that was not ours, as a share of the machine's.
    steal_share: f64,
    start_up: StartUp,
    rows: Vec<Row>,
    memory: Vec<Memory>,
}

/// One kind of request at one subject by one tool.
#[derive(Debug)]
struct Row {
    stores: &'static str,
    telemetry: &'static str,
    route: &'static str,
    tool: Tool,
    rounds: Vec<Round>,
}

/// What one round came to.
#[derive(Debug)]
struct Round {
    /// Microseconds of CPU time per request, by process.
    own: BTreeMap<&'static str, f64>,
    databases: f64,
    /// Requests a second, and the share of them that was an order to be finished later.
    rate: f64,
    later: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
}

/// Resident memory of one process.
#[derive(Debug)]
struct Memory {
    stores: &'static str,
    telemetry: &'static str,
    process: &'static str,
    /// Before any load, and the most under it, MiB.
    idle: f64,
    loaded: f64,
}

/// Measures everything, with rounds of so many seconds. `told` hears of each.
pub async fn measure(seconds: u64, told: impl Fn(&str)) -> Report {
    let machine = Machine::here();
    let start_up = StartUp::measure().await;
    told(&format!("{start_up:?}"));
    let subjects = Subjects::start().await;
    let subjects = subjects.all();
    let idle: Vec<_> = subjects.iter().map(|subject| subject.resident()).collect();
    let mut loaded = idle.clone();
    let mut rows: Vec<Row> = Vec::new();
    let whole = Usage::of_machine();
    let mut ours = Duration::ZERO;
    for round in 0..=ROUNDS {
        let tools = if round == 0 { &[Tool::Wrk][..] } else { &[Tool::Wrk, Tool::K6] };
        for tool in tools.iter().copied() {
            for route in 0..subjects.iter().map(|subject| subject.requests.len()).max().unwrap_or(0) {
                for (subject, loaded) in subjects.iter().zip(&mut loaded) {
                    let Some(request) = subject.requests.get(route) else { continue };
                    let watch = Sampler::begin(subject);
                    let answered = tool.load(request, if round == 0 { 1 } else { seconds }).await;
                    let used = watch.end();
                    ours += used.own.values().sum::<Duration>() + used.databases;
                    for (process, most) in loaded.iter_mut() {
                        *most = most.max(used.resident.get(process).copied().unwrap_or(0.0));
                    }
                    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / answered.requests;
                    let result = Round {
                        own: used.own.iter().map(|(process, time)| (*process, per_request(*time))).collect(),
                        databases: per_request(used.databases),
                        rate: answered.requests / answered.seconds,
                        later: answered.later / answered.requests,
                        p50: answered.p50,
                        p99: answered.p99,
                    };
                    let (stores, telemetry) = (subject.stores, subject.telemetry);
                    told(&format!("{round} {tool:?} {} {stores}, {telemetry}: {result:?}", request.route));
                    if round > 0 {
                        let same =
                            |row: &&mut Row| (row.stores, row.telemetry, row.route, row.tool) == (stores, telemetry, request.route, tool);
                        match rows.iter_mut().find(same) {
                            Some(row) => row.rounds.push(result),
                            None => rows.push(Row { stores, telemetry, route: request.route, tool, rounds: vec![result] }),
                        }
                    }
                }
            }
        }
    }
    let whole = Usage::of_machine().since(&whole);
    let ours = ours + cpu_usage::own_and_children();
    let memory = subjects.iter().zip(idle).zip(loaded).flat_map(|((subject, idle), loaded)| {
        let (stores, telemetry) = (subject.stores, subject.telemetry);
        let both = idle.into_iter().zip(loaded);
        both.map(move |((process, idle), (_, loaded))| Memory { stores, telemetry, process, idle, loaded })
    });
    let elsewhere = (whole.busy.saturating_sub(ours) + whole.stolen).as_secs_f64() / whole.all.as_secs_f64();
    Report { machine, seconds, steal_share: elsewhere, start_up, rows, memory: memory.collect() }
}

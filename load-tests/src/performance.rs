//! Performance measurement: CPU time per request and memory, with wrk and k6, compared with a bare
//! hop in the same run.
//!
//! All processes run at the same time. The load visits one set of processes after the other in
//! short rounds, so that noise on the machine affects all figures equally.

mod baseline_read;
mod collector;
mod cpu_usage;
mod host;
mod load_generator;
mod report;
mod start_up;
mod system_under_test;

use std::{collections::BTreeMap, time::Duration};

pub use baseline_read::read;
pub use collector::collect;
pub use host::Machine;
pub use report::page;
pub use start_up::StartUp;
pub use system_under_test::SystemsUnderTest;

use self::{
    cpu_usage::{HostCpu, Sampler},
    load_generator::LoadGenerator,
};

/// Measured rounds. One warm-up round before them fills caches and connections.
pub const ROUNDS: usize = 3;

/// Results of a run.
#[derive(Debug)]
pub struct Report {
    machine: Machine,
    seconds: u64,
    /// CPU time of other processes and of the hypervisor, as a share of the machine's.
    steal_share: f64,
    start_up: StartUp,
    rows: Vec<Row>,
    memory: Vec<Memory>,
}

/// Results for one route, system under test and load generator.
#[derive(Debug)]
struct Row {
    stores: &'static str,
    telemetry: &'static str,
    route: &'static str,
    tool: LoadGenerator,
    rounds: Vec<Round>,
}

/// Result of one round.
#[derive(Debug)]
struct Round {
    /// CPU time per request by process, microseconds.
    services: BTreeMap<&'static str, f64>,
    databases: f64,
    /// Requests per second, and the share of orders answered with 202.
    rate: f64,
    deferred: f64,
    /// Latency, milliseconds.
    p50: f64,
    p99: f64,
}

/// Resident memory of one process.
#[derive(Debug)]
struct Memory {
    stores: &'static str,
    telemetry: &'static str,
    process: &'static str,
    /// Before any load, and the maximum under load, MiB.
    idle: f64,
    loaded: f64,
}

/// Runs the complete measurement, with rounds of `seconds`. Reports progress to the callback.
pub async fn measure(seconds: u64, progress: impl Fn(&str)) -> Report {
    let machine = Machine::here();
    let start_up = StartUp::measure().await;
    progress(&format!("{start_up:?}"));
    let subjects = SystemsUnderTest::start().await;
    let subjects = subjects.all();
    let idle: Vec<_> = subjects.iter().map(|subject| subject.resident()).collect();
    let mut loaded = idle.clone();
    let mut rows: Vec<Row> = Vec::new();
    let whole = HostCpu::of_machine();
    let mut ours = Duration::ZERO;
    for round in 0..=ROUNDS {
        let tools = if round == 0 { &[LoadGenerator::Wrk][..] } else { &[LoadGenerator::Wrk, LoadGenerator::K6] };
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
                        services: used.own.iter().map(|(process, time)| (*process, per_request(*time))).collect(),
                        databases: per_request(used.databases),
                        rate: answered.requests / answered.seconds,
                        deferred: answered.deferred / answered.requests,
                        p50: answered.p50,
                        p99: answered.p99,
                    };
                    let (stores, telemetry) = (subject.stores, subject.telemetry);
                    progress(&format!("{round} {tool:?} {} {stores}, {telemetry}: {result:?}", request.route));
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
    let whole = HostCpu::of_machine().since(&whole);
    let ours = ours + cpu_usage::own_and_children();
    let memory = subjects.iter().zip(idle).zip(loaded).flat_map(|((subject, idle), loaded)| {
        let (stores, telemetry) = (subject.stores, subject.telemetry);
        let both = idle.into_iter().zip(loaded);
        both.map(move |((process, idle), (_, loaded))| Memory { stores, telemetry, process, idle, loaded })
    });
    let elsewhere = (whole.busy.saturating_sub(ours) + whole.stolen).as_secs_f64() / whole.all.as_secs_f64();
    Report { machine, seconds, steal_share: elsewhere, start_up, rows, memory: memory.collect() }
}

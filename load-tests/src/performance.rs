//! Performance measurement: CPU time per request and memory, with wrk and k6, compared with a bare
//! hop in the same run.
//!
//! All processes run at the same time. The load visits one set of processes after the other in
//! short rounds, so that noise on the machine affects all figures equally.

mod backends;
mod cpu_usage;
mod host;
mod load_generator;
mod order_path;
mod report;
mod start_up;
mod system_under_test;

use std::{collections::BTreeMap, time::Duration};

pub use backends::{run_baseline_reader, run_collector};
pub use host::Host;
pub use report::page;
pub use start_up::StartUp;
pub use system_under_test::{SystemsUnderTest, serve};

use self::{
    cpu_usage::{MeasuredUsage, Sampler},
    host::{HostCpu, own_and_children},
    load_generator::{LoadGenerator, LoadResult},
    order_path::OrderRow,
};

/// Measured rounds. One warm-up round before them fills caches and connections.
pub const ROUNDS: usize = 3;

/// Results of a run.
#[derive(Debug)]
pub struct Report {
    host: Host,
    seconds: u64,
    /// CPU time of other processes and of the hypervisor, as a share of the machine's.
    foreign_share: f64,
    start_up: StartUp,
    rows: Vec<Row>,
    memory: Vec<Memory>,
    orders: Vec<OrderRow>,
}

/// Results for one route, system under test and load generator.
#[derive(Debug)]
struct Row {
    stores: &'static str,
    telemetry: &'static str,
    route: &'static str,
    generator: LoadGenerator,
    rounds: Vec<Round>,
}

/// Result of one round.
#[derive(Debug)]
struct Round {
    /// CPU time per request by process, microseconds.
    services: BTreeMap<&'static str, f64>,
    databases: BTreeMap<&'static str, f64>,
    /// Voluntary context switches of the services per request.
    switches: f64,
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

impl Round {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 context switches")]
    fn new(answered: &LoadResult, used: &MeasuredUsage) -> Self {
        let per_request = |(process, time): (&&'static str, &Duration)| (*process, time.as_secs_f64() * 1e6 / answered.requests);
        Self {
            services: used.services.iter().map(per_request).collect(),
            databases: used.databases.iter().map(per_request).collect(),
            switches: used.switches as f64 / answered.requests,
            rate: answered.requests / answered.seconds,
            deferred: answered.deferred / answered.requests,
            p50: answered.p50,
            p99: answered.p99,
        }
    }
}

/// Runs the complete measurement, with rounds of `seconds`. Reports progress to the callback.
pub async fn measure(seconds: u64, progress: impl Fn(&str)) -> Report {
    let host = Host::read();
    let start_up = StartUp::measure().await;
    progress(&format!("{start_up:?}"));
    let orders = order_path::measure(seconds, &progress).await;
    let running = SystemsUnderTest::start().await;
    let systems = running.all();
    let idle: Vec<_> = systems.iter().map(|system| system.processes.resident()).collect();
    let mut loaded = idle.clone();
    let mut rows: Vec<Row> = Vec::new();
    let host_before = HostCpu::now();
    let mut ours = Duration::ZERO;
    for round in 0..=ROUNDS {
        let generators = if round == 0 { &[LoadGenerator::Wrk][..] } else { &[LoadGenerator::Wrk, LoadGenerator::K6] };
        for generator in generators.iter().copied() {
            for route in 0..systems.iter().map(|system| system.requests.len()).max().unwrap_or(0) {
                for (system, loaded) in systems.iter().zip(&mut loaded) {
                    let Some(request) = system.requests.get(route) else { continue };
                    let sampler = Sampler::start(&system.processes);
                    let answered = generator.load(request, if round == 0 { 1 } else { seconds }).await;
                    let used = sampler.stop();
                    ours += used.services.values().chain(used.databases.values()).sum::<Duration>();
                    for (process, maximum) in loaded.iter_mut() {
                        *maximum = maximum.max(used.resident.get(process).copied().unwrap_or(0.0));
                    }
                    let result = Round::new(&answered, &used);
                    let (stores, telemetry) = (system.stores, system.telemetry);
                    progress(&format!("{round} {generator:?} {} {stores}, {telemetry}: {result:?}", request.route));
                    if round > 0 {
                        let key = (stores, telemetry, request.route, generator);
                        let same = |row: &&mut Row| (row.stores, row.telemetry, row.route, row.generator) == key;
                        match rows.iter_mut().find(same) {
                            Some(row) => row.rounds.push(result),
                            None => rows.push(Row { stores, telemetry, route: request.route, generator, rounds: vec![result] }),
                        }
                    }
                }
            }
        }
    }
    let used = HostCpu::now().since(&host_before);
    let ours = ours + own_and_children();
    let memory = systems.iter().zip(idle).zip(loaded).flat_map(|((system, idle), loaded)| {
        let (stores, telemetry) = (system.stores, system.telemetry);
        idle.into_iter().zip(loaded).map(move |((process, idle), (_, loaded))| Memory { stores, telemetry, process, idle, loaded })
    });
    let foreign_share = (used.busy.saturating_sub(ours) + used.stolen).as_secs_f64() / used.all.as_secs_f64();
    Report { host, seconds, foreign_share, start_up, rows, memory: memory.collect(), orders }
}

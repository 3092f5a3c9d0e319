//! Many seeds on all cores, each in a process of its own.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::shrink;

/// One seed in so many is run twice, to compare the hashes.
const TWICE_EVERY: u64 = 100;

/// Sums of the results.
#[derive(Default)]
struct Totals {
    seeds: u64,
    faults: u64,
    orders: u64,
    store_failures: u64,
    simulated_ms: u64,
    repeated: u64,
    failed: Option<(u64, Value)>,
}

/// Runs the seeds `a..b`. Returns whether all invariants hold for all of them.
pub(super) fn run(seeds: &str) -> anyhow::Result<bool> {
    let (first, end) = seeds.split_once("..").context("--seeds: must be a..b")?;
    let (first, end): (u64, u64) = (first.parse()?, end.parse()?);
    let (next, stop, totals) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(Totals::default()));
    let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    thread::scope(|scope| {
        let worker = || -> anyhow::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    break;
                }
                let result = result(seed, &Variation::default()).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                let mut failure = (!result["invariant"].is_null()).then(|| result.clone());
                if seed % TWICE_EVERY == 0 && failure.is_none() {
                    let again = self::result(seed, &Variation::default())?;
                    if again["hash"] != result["hash"] {
                        let mut different = result.clone();
                        different["invariant"] = "the same seed has the same events".into();
                        different["evidence"] = format!("hashes {} and {}", result["hash"], again["hash"]).into();
                        failure = Some(different);
                    }
                }
                let number = |field: &str| result[field].as_u64().unwrap_or_default();
                let Ok(mut totals) = totals.lock() else { break };
                totals.seeds += 1;
                totals.faults += number("faults");
                totals.orders += number("orders");
                totals.store_failures += number("storeFailures");
                totals.simulated_ms += number("simulatedMs");
                totals.repeated += u64::from(seed % TWICE_EVERY == 0);
                if let Some(failure) = failure {
                    stop.store(true, Ordering::Relaxed);
                    totals.failed.get_or_insert((seed, failure));
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    let Totals { seeds, faults, orders, store_failures, simulated_ms, repeated, failed } =
        totals.into_inner().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    let mut out = std::io::stdout().lock();
    if let Some((seed, result)) = failed {
        shrink::explain(&mut out, seed, &result)?;
        return Ok(false);
    }
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    let (cpu, hours) = (cpu_ms(CHILDREN) as f64 / 1_000.0, simulated_ms as f64 / 3_600_000.0);
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    let rate = seeds as f64 / cpu.max(0.01);
    writeln!(
        out,
        "{seeds} seeds ({repeated} of them twice, with equal hashes): {faults} faults, {store_failures} failed store calls, {orders} orders, \
         {hours:.1} simulated hours, no violation; {cpu:.0} s of CPU, {rate:.1} seeds per CPU-second"
    )?;
    Ok(true)
}

/// Runs `seed` in a process of its own and returns its result.
pub(super) fn result(seed: u64, variation: &Variation<'_>) -> anyhow::Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--result", "--seed", &seed.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
    command.args(variation.arguments());
    let output = command.output()?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("seed {seed} ended without a result ({})", output.status))
}

/// Differences to the plan of a seed.
#[derive(Debug, Clone, Default)]
pub(super) struct Variation<'a> {
    pub(super) without_faults: Vec<usize>,
    pub(super) without_clients: Vec<usize>,
    pub(super) planted: Option<&'a str>,
}

impl Variation<'_> {
    /// Arguments of this program.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for (option, numbers) in [("--without-faults", &self.without_faults), ("--without-clients", &self.without_clients)] {
            if !numbers.is_empty() {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                arguments.extend([option.to_owned(), numbers.join(",")]);
            }
        }
        arguments.extend(self.planted.into_iter().flat_map(|fault| ["--planted".to_owned(), fault.to_owned()]));
        arguments
    }
}

/// Fields of `/proc/self/stat` after the name, from user time on: of this process, or of its
/// children that have ended.
pub(super) const OWN: usize = 11;
const CHILDREN: usize = 13;

/// CPU time, milliseconds. The clocks of this program stand still.
pub(super) fn cpu_ms(first_field: usize) -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(first_field).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks * 10
}

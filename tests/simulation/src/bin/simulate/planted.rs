//! Runs every planted fault until a seed finds it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Context as _;
use palisade_simulation::planted::FAULTS;

use super::batch::{Variation, result};

/// Seeds until which each planted fault must be found.
const SEEDS: u64 = 1_000;
/// Marks of the table in docs/simulation.md.
const BEGIN: &str = "<!-- begin: make planted-faults -->";
const END: &str = "<!-- end: make planted-faults -->";

/// Runs all planted faults, or those whose name contains `only`. Returns whether each was found.
/// `write` puts the table into docs/simulation.md.
pub(super) fn run(only: &str, seeds: Option<u64>, write: bool) -> anyhow::Result<bool> {
    let faults: Vec<&str> = FAULTS.into_iter().filter(|fault| fault.contains(only)).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    thread::scope(|scope| {
        let worker = || -> anyhow::Result<()> {
            while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut cpu_ms = 0;
                for seed in 0..seeds.unwrap_or(SEEDS) {
                    let result = result(seed, &Variation { planted: Some(fault), ..Variation::default() })?;
                    cpu_ms += result["cpuMs"].as_u64().unwrap_or_default();
                    if let Some(invariant) = result["invariant"].as_str() {
                        if let Ok(mut found) = found.lock() {
                            found.insert(*fault, (seed, invariant.to_owned(), cpu_ms.div_ceil(1_000)));
                        }
                        break;
                    }
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| anyhow::bail!("a worker panicked")))
    })?;
    let found = found.into_inner().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    let mut table = "| planted fault | found by seed | broken invariant | CPU seconds |\n|---|---|---|---|\n".to_owned();
    for fault in &faults {
        match found.get(fault) {
            Some((seed, invariant, seconds)) => writeln!(table, "| {fault} | {seed} | {invariant} | {seconds} |")?,
            None => writeln!(table, "| {fault} | **not found** | | |")?,
        }
    }
    writeln!(table, "\n{} of {} planted faults found within {} seeds.", found.len(), faults.len(), seeds.unwrap_or(SEEDS))?;
    io::stdout().write_all(table.as_bytes())?;
    if write {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/simulation.md");
        let text = fs::read_to_string(&page)?;
        let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) = parts.context("docs/simulation.md has no place for the table")?;
        fs::write(&page, format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))?;
    }
    Ok(found.len() == faults.len())
}

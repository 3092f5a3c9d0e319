//! Runs every planted fault until a seed finds it.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use palisade_simulation::planted::FAULTS;

use super::batch::{Variation, result};

/// Seeds until which each planted fault must be found.
const SEEDS: u64 = 1_000;

/// Runs all planted faults, or those whose name contains `only`. Returns whether each was found.
pub(super) fn run(only: &str, seeds: Option<u64>) -> anyhow::Result<bool> {
    let faults: Vec<&str> = FAULTS.into_iter().filter(|fault| fault.contains(only)).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    thread::scope(|scope| {
        let worker = || -> anyhow::Result<()> {
            while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                for seed in 0..seeds.unwrap_or(SEEDS) {
                    let result = result(seed, &Variation { planted: Some(fault), ..Variation::default() })?;
                    if let Some(invariant) = result["invariant"].as_str() {
                        if let Ok(mut found) = found.lock() {
                            found.insert(*fault, (seed, invariant.to_owned()));
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
    let mut out = std::io::stdout().lock();
    writeln!(out, "| planted fault | found by seed | broken invariant |\n|---|---|---|")?;
    for fault in &faults {
        match found.get(fault) {
            Some((seed, invariant)) => writeln!(out, "| {fault} | {seed} | {invariant} |")?,
            None => writeln!(out, "| {fault} | **not found** | |")?,
        }
    }
    writeln!(out, "{} of {} planted faults found", found.len(), faults.len())?;
    Ok(found.len() == faults.len())
}

//! CPU time, context switches and memory of processes, from the kernel (proc(5)).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use procfs::{
    ProcResult,
    process::{Process, Status, Task},
};

/// Interval of memory samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// Processes that are measured together.
#[derive(Debug, Clone)]
pub(super) struct Processes {
    /// Names and process IDs of the services.
    pub(super) services: Vec<(&'static str, u32)>,
    /// Names and process IDs of the database servers, measured with their descendants.
    pub(super) databases: Vec<(&'static str, u32)>,
}

/// Measures the usage of processes from its creation.
pub(super) struct Sampler<'a> {
    processes: &'a Processes,
    cpu_before: Vec<Duration>,
    switches_before: u64,
    stop: Arc<AtomicBool>,
    worker: JoinHandle<BTreeMap<&'static str, f64>>,
}

/// Measured usage.
pub(super) struct MeasuredUsage {
    /// CPU time by service.
    pub(super) services: BTreeMap<&'static str, Duration>,
    /// CPU time by database server.
    pub(super) databases: BTreeMap<&'static str, Duration>,
    /// Voluntary context switches of the services: a thread waited.
    pub(super) switches: u64,
    /// Maximum resident memory by service, MiB.
    pub(super) resident: BTreeMap<&'static str, f64>,
}

impl Processes {
    /// Returns the resident memory of each service, MiB.
    pub(super) fn resident(&self) -> BTreeMap<&'static str, f64> {
        self.services.iter().map(|(name, id)| (*name, resident(*id))).collect()
    }

    /// Returns the CPU time of each service, then of each database with its descendants.
    fn cpu(&self) -> Vec<Duration> {
        let services = self.services.iter().map(|(_, id)| cpu(*id));
        services.chain(self.databases.iter().map(|(_, id)| with_descendants(*id).into_iter().map(cpu).sum())).collect()
    }

    /// Returns the voluntary context switches of the services.
    fn switches(&self) -> u64 {
        let threads = self.services.iter().flat_map(|(_, id)| tasks(*id));
        threads.filter_map(|thread| thread.status().ok()?.voluntary_ctxt_switches).sum()
    }

    /// Returns the IDs of all measured processes.
    pub(super) fn ids(&self) -> Vec<u32> {
        let databases = self.databases.iter().flat_map(|(_, id)| with_descendants(*id));
        self.services.iter().map(|(_, id)| *id).chain(databases).collect()
    }
}

impl<'a> Sampler<'a> {
    pub(super) fn start(processes: &'a Processes) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, sampled) = (Arc::clone(&stop), processes.clone());
        let worker = thread::spawn(move || {
            let mut maximum = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for (name, resident) in sampled.resident() {
                    let maximum: &mut f64 = maximum.entry(name).or_default();
                    *maximum = maximum.max(resident);
                }
                thread::park_timeout(SAMPLE_INTERVAL);
            }
            maximum
        });
        Self { cpu_before: processes.cpu(), switches_before: processes.switches(), processes, stop, worker }
    }

    pub(super) fn stop(self) -> MeasuredUsage {
        let (cpu_after, switches) = (self.processes.cpu(), self.processes.switches());
        self.stop.store(true, Ordering::Relaxed);
        self.worker.thread().unpark();
        let mut used = cpu_after.into_iter().zip(self.cpu_before).map(|(after, before)| after.saturating_sub(before));
        let services = self.processes.services.iter().map(|(name, _)| *name).zip(used.by_ref()).collect();
        let databases = self.processes.databases.iter().map(|(name, _)| *name).zip(used).collect();
        let switches = switches.saturating_sub(self.switches_before);
        MeasuredUsage { services, databases, switches, resident: self.worker.join().expect("sampler thread does not panic") }
    }
}

/// Returns the CPU time of all live threads of a process. Ended threads are not counted; the
/// services end none under load.
fn cpu(id: u32) -> Duration {
    let threads = tasks(id).into_iter().filter_map(|task| task.schedstat().ok());
    Duration::from_nanos(threads.map(|thread| thread.sum_exec_runtime).sum())
}

/// Returns a process and all its descendants.
fn with_descendants(id: u32) -> Vec<u32> {
    let children = tasks(id).into_iter().filter_map(|task| task.children().ok()).flatten();
    let mut all = vec![id];
    all.extend(children.flat_map(with_descendants));
    all
}

/// Returns the resident memory of a process, MiB. 0 if the process has ended.
#[expect(clippy::cast_precision_loss, reason = "sizes in KiB are below 2^52")]
pub(super) fn resident(id: u32) -> f64 {
    let status = process(id).and_then(|process| process.status());
    status.ok().and_then(|Status { vmrss, .. }| vmrss).unwrap_or(0) as f64 / 1_024.0
}

/// Returns the threads of a process, none if it has ended.
fn tasks(id: u32) -> Vec<Task> {
    let tasks = process(id).and_then(|process| process.tasks());
    tasks.map(|tasks| tasks.flatten().collect()).unwrap_or_default()
}

fn process(id: u32) -> ProcResult<Process> {
    Process::new(i32::try_from(id).expect("a process ID is positive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::performance::host::{HostCpu, own_and_children};

    /// Resolution of the coarse counters (`USER_HZ`).
    const TICK: Duration = Duration::from_millis(10);

    #[test]
    fn cpu_time_and_memory_are_measured() {
        let before = (cpu(std::process::id()), own_and_children(), HostCpu::now());
        let mut work = vec![1_u64; 8 << 20];
        for round in 0..20 {
            for place in &mut work {
                *place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
            }
        }
        assert!(std::hint::black_box(work).len() > 1);
        let spent = cpu(std::process::id()).saturating_sub(before.0);
        assert!(spent > Duration::from_millis(5), "{spent:?}");
        let coarse = own_and_children().saturating_sub(before.1);
        assert!(coarse + 4 * TICK >= spent, "{coarse:?} of {spent:?}");
        let machine = HostCpu::now().since(&before.2);
        assert!(machine.busy + 4 * TICK >= spent && machine.all >= machine.busy, "{:?} of {spent:?}", machine.busy);
        assert!(resident(std::process::id()) > 1.0);
    }
}

//! CPU time and memory of processes and of the host, from the kernel (proc(5)).

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::system_under_test::SystemUnderTest;

/// Clock tick in `/proc/stat` and `/proc/<pid>/stat`: `USER_HZ` is 100 on all Linux platforms.
const TICK: Duration = Duration::from_millis(10);
/// Interval of memory samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// Measures the usage of a system's processes from its creation.
pub(super) struct Sampler<'a> {
    subject: &'a SystemUnderTest,
    before: Vec<Duration>,
    stop: Arc<AtomicBool>,
    worker: JoinHandle<BTreeMap<&'static str, f64>>,
}

/// Measured usage.
pub(super) struct MeasuredUsage {
    pub(super) own: BTreeMap<&'static str, Duration>,
    pub(super) databases: Duration,
    /// Maximum resident memory, MiB.
    pub(super) resident: BTreeMap<&'static str, f64>,
}

/// CPU time of the host.
pub(super) struct HostCpu {
    pub(super) all: Duration,
    pub(super) busy: Duration,
    /// Steal time: CPU time used by other virtual machines.
    pub(super) stolen: Duration,
}

impl<'a> Sampler<'a> {
    pub(super) fn begin(subject: &'a SystemUnderTest) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (ends, processes) = (Arc::clone(&over), subject.processes.clone());
        let looking = thread::spawn(move || {
            let mut most = BTreeMap::new();
            while !ends.load(Ordering::Relaxed) {
                for (name, id) in &processes {
                    let most: &mut f64 = most.entry(*name).or_default();
                    *most = most.max(resident(*id));
                }
                thread::park_timeout(SAMPLE_INTERVAL);
            }
            most
        });
        Self { before: times(subject), subject, stop: over, worker: looking }
    }

    pub(super) fn end(self) -> MeasuredUsage {
        let after = times(self.subject);
        self.stop.store(true, Ordering::Relaxed);
        self.worker.thread().unpark();
        let mut grown = after.into_iter().zip(self.before).map(|(after, before)| after.saturating_sub(before));
        let own = self.subject.processes.iter().map(|(name, _)| *name).zip(grown.by_ref()).collect();
        MeasuredUsage { own, databases: grown.sum(), resident: self.worker.join().expect("sampler thread does not panic") }
    }
}

/// Returns the CPU time of each service process, then of each database with its descendants.
fn times(subject: &SystemUnderTest) -> Vec<Duration> {
    let own = subject.processes.iter().map(|(_, id)| cpu(*id));
    own.chain(subject.databases.iter().map(|id| with_descendants(*id).into_iter().map(cpu).sum())).collect()
}

/// Returns the CPU time of all live threads of a process. Ended threads are not counted; the
/// services end none under load.
fn cpu(id: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks.map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Returns a process and all its descendants.
fn with_descendants(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(with_descendants));
    }
    all
}

/// Returns the resident memory of a process, MiB.
pub(super) fn resident(id: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

impl HostCpu {
    pub(super) fn of_machine() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        // user nice system idle iowait irq softirq steal. Guest time is part of user.
        let ticks: Vec<u32> = first.split_whitespace().skip(1).take(8).filter_map(|ticks| ticks.parse().ok()).collect();
        let sum = |fields: &[usize]| fields.iter().filter_map(|field| ticks.get(*field)).map(|ticks| TICK * *ticks).sum();
        Self { all: sum(&[0, 1, 2, 3, 4, 5, 6, 7]), busy: sum(&[0, 1, 2, 5, 6]), stolen: sum(&[7]) }
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            busy: self.busy.saturating_sub(before.busy),
            stolen: self.stolen.saturating_sub(before.stolen),
        }
    }
}

/// Returns the CPU time of this process and of its ended children.
pub(super) fn own_and_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    // utime, stime, cutime and cstime are fields 14 to 17. The first field after the name is 3.
    fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<u32>().ok()).map(|ticks| TICK * ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_and_memory_are_measured() {
        let before = (cpu(std::process::id()), own_and_children(), HostCpu::of_machine());
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
        let machine = HostCpu::of_machine().since(&before.2);
        assert!(machine.busy + 4 * TICK >= spent && machine.all >= machine.busy, "{:?} of {spent:?}", machine.busy);
        assert!(resident(std::process::id()) > 1.0);
    }
}

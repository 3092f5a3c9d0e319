//! Host of a run: description, and CPU time of all processes.

use std::{thread, time::Duration};

use procfs::{CpuInfo, Current, CurrentSI, KernelStats, KernelVersion, LoadAverage, Meminfo, process::Process, ticks_per_second};

/// Host properties that affect the figures.
#[derive(Debug)]
pub struct Host {
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) memory_gib: f64,
    pub(super) kernel: String,
    /// Load average of the last minute.
    pub(super) load: f32,
    pub(super) hypervisor: bool,
}

/// CPU time of the host.
#[derive(Debug)]
pub(super) struct HostCpu {
    pub(super) all: Duration,
    pub(super) busy: Duration,
    /// Steal time: CPU time used by other virtual machines.
    pub(super) stolen: Duration,
}

impl Host {
    /// Reads the properties of this host.
    #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
    pub fn read() -> Self {
        let cpu = CpuInfo::current().expect("the kernel describes the processors");
        let kernel = KernelVersion::current().expect("the kernel has a version");
        Self {
            processor: cpu.model_name(0).unwrap_or("unknown").to_owned(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_gib: Meminfo::current().map_or(0.0, |memory| memory.mem_total as f64 / f64::from(1 << 30)),
            kernel: format!("{}.{}.{}", kernel.major, kernel.minor, kernel.patch),
            load: LoadAverage::current().map_or(0.0, |load| load.one),
            hypervisor: cpu.flags(0).is_some_and(|flags| flags.contains(&"hypervisor")),
        }
    }
}

impl HostCpu {
    pub(super) fn now() -> Self {
        let total = KernelStats::current().expect("the kernel counts CPU time").total;
        // Guest time is part of user time.
        let optional = [total.irq_duration(), total.softirq_duration()].into_iter().flatten().sum();
        let busy = [total.user_duration(), total.nice_duration(), total.system_duration(), optional].into_iter().sum();
        let stolen = total.steal_duration().unwrap_or_default();
        let idle = total.idle_duration() + total.iowait_duration().unwrap_or_default();
        Self { all: busy + stolen + idle, busy, stolen }
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
    let stat = Process::myself().and_then(|process| process.stat()).expect("the kernel counts CPU time");
    let children = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
    Duration::from_millis((stat.utime + stat.stime + children) * 1_000 / ticks_per_second())
}

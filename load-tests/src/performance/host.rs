//! Description of the host of a run.

use std::{fs, thread};

/// Host properties that affect the figures.
#[derive(Debug)]
pub struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) memory_gib: f64,
    pub(super) kernel: String,
    /// Load average of the last minute.
    pub(super) load: String,
    pub(super) hypervisor: bool,
}

impl Machine {
    /// Reads the properties of this host.
    pub fn here() -> Self {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (file("/proc/cpuinfo"), file("/proc/meminfo"));
        let of = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let kib: f64 = of(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        Self {
            processor: of(&cpu, "model name"),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib / 1_048_576.0,
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: file("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            hypervisor: of(&cpu, "flags").split(' ').any(|flag| flag == "hypervisor"),
        }
    }
}

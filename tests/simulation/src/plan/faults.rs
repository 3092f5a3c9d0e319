//! Faults of a plan.

use rand::{RngExt, rngs::StdRng};

use super::{BEGIN_MS, Plan};
use crate::disk::{CrashPoint, DiskFaults};

/// A fault and its duration.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Number of the fault, also after others were removed.
    pub number: usize,
    /// Beginning, milliseconds.
    pub from_ms: u64,
    /// End, milliseconds.
    pub until_ms: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// Kinds of faults.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// The process is killed, and started again at the end.
    Crash {
        /// Its host.
        host: String,
    },
    /// The process is killed after its next commit of a kind, before it learns of it, and started
    /// again at the end.
    CrashAtCommit {
        /// The service: `orders` or `products`.
        service: &'static str,
        /// Process and commit.
        point: CrashPoint,
    },
    /// Messages between two hosts are lost in both directions.
    Partition {
        /// One host.
        one: String,
        /// The other.
        other: String,
    },
    /// Messages from one host to another are lost.
    OneWayLoss {
        /// The sender.
        from: String,
        /// The receiver.
        to: String,
    },
    /// Messages between two hosts are held back, and delivered at the end.
    Hold {
        /// One host.
        one: String,
        /// The other.
        other: String,
    },
    /// Messages between two hosts are late.
    Delay {
        /// One host.
        one: String,
        /// The other.
        other: String,
        /// Latency, milliseconds.
        latency_ms: u64,
    },
    /// The clock of a host jumps, and back at the end.
    ClockJump {
        /// The host.
        host: String,
        /// Distance, milliseconds.
        by_ms: i64,
    },
    /// A store fails, or is slow or full.
    Disk {
        /// The service: `orders` or `products`.
        service: &'static str,
        /// Its faults.
        faults: DiskFaults,
    },
}

impl FaultKind {
    /// Name of the kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::CrashAtCommit { .. } => "crash at a commit",
            Self::Partition { .. } => "partition",
            Self::OneWayLoss { .. } => "one-way loss",
            Self::Hold { .. } => "hold",
            Self::Delay { .. } => "delay",
            Self::ClockJump { .. } => "clock jump",
            Self::Disk { faults, .. } if faults.is_full => "full disk",
            Self::Disk { faults, .. } if faults.fail_after > 0.0 => "unknown commits",
            Self::Disk { faults, .. } if faults.fail_before > 0.0 => "failing store",
            Self::Disk { .. } => "slow store",
        }
    }
}

/// Number of kinds that [`draw_kind`] knows.
const KINDS: usize = 11;
/// Commits of orders and products at which a process can crash.
const COMMITS: [(&str, &[&str]); 2] = [
    (
        "orders",
        &[
            "claim_due",
            "claim_fulfilments",
            "create",
            "end_revision",
            "fulfilment_done",
            "mark_published",
            "postpone",
            "release_done",
            "remove",
            "request_revision",
            "set_status",
            "store_response",
            "transition",
        ],
    ),
    ("products", &["confirm", "fulfil", "release", "reserve", "reserve_and_confirm", "revise"]),
];

/// Draws the faults: none in a tenth of the plans, one kind in three tenths, else several kinds.
pub(super) fn draw(plan: &Plan, random: &mut StdRng) -> Vec<Fault> {
    let mix = random.random_range(0..10);
    let kinds: Vec<usize> = match mix {
        0 => return Vec::new(),
        1..=3 => vec![random.random_range(0..KINDS)],
        _ => (0..KINDS).filter(|_| random.random_bool(0.5)).collect(),
    };
    let mut faults = Vec::new();
    if kinds.is_empty() {
        return faults;
    }
    for _ in 0..random.random_range(1..=8) {
        let kind = draw_kind(kinds[random.random_range(0..kinds.len())], plan, random);
        let from_ms = random.random_range(BEGIN_MS..plan.heal_ms - 200);
        let until_ms = (from_ms + random.random_range(50..=4_000)).min(plan.heal_ms);
        faults.push(Fault { number: 0, from_ms, until_ms, kind });
    }
    faults.sort_by_key(|fault| fault.from_ms);
    for (number, fault) in faults.iter_mut().enumerate() {
        fault.number = number;
    }
    faults
}

fn draw_kind(kind: usize, plan: &Plan, random: &mut StdRng) -> FaultKind {
    let hosts = plan.hosts();
    let host = |random: &mut StdRng| hosts[random.random_range(0..hosts.len())].clone();
    let (one, mut other) = (host(random), host(random));
    while one == other {
        other = host(random);
    }
    let disk =
        |random: &mut StdRng, faults| FaultKind::Disk { service: if random.random_bool(0.5) { "orders" } else { "products" }, faults };
    let none = DiskFaults::default();
    match kind {
        0 => FaultKind::Crash { host: one },
        1 => FaultKind::Partition { one, other },
        2 => FaultKind::OneWayLoss { from: one, to: other },
        3 => FaultKind::Hold { one, other },
        4 => FaultKind::Delay { one, other, latency_ms: random.random_range(50..=1_500) },
        5 => FaultKind::ClockJump { host: one, by_ms: random.random_range(-10_000..=10_000) },
        6 => {
            let fail_before = random.random_range(0.05..=0.6);
            disk(random, DiskFaults { fail_before, ..none })
        }
        7 => {
            let fail_after = random.random_range(0.05..=0.6);
            disk(random, DiskFaults { fail_after, fail_before: fail_after / 4.0, ..none })
        }
        8 => {
            let delay_ms = random.random_range(50..=3_000);
            disk(random, DiskFaults { delay_ms, ..none })
        }
        9 => disk(random, DiskFaults { is_full: true, ..none }),
        _ => {
            let (service, commits) = COMMITS[random.random_range(0..COMMITS.len())];
            let hosts: Vec<_> = hosts.iter().filter(|host| host.starts_with(service)).collect();
            let host = hosts[random.random_range(0..hosts.len())].clone();
            let operation = commits[random.random_range(0..commits.len())];
            FaultKind::CrashAtCommit { service, point: CrashPoint { host, operation } }
        }
    }
}

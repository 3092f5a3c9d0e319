//! Begins and ends the faults of a plan.

use std::{sync::Arc, time::Duration};

use turmoil::Sim;

use crate::{
    clock::SimulatedClock,
    disk::{Disk, DiskFaults},
    plan::{Fault, FaultKind, Plan},
    story::Story,
};

/// Faults that are still to begin or to end.
pub(super) struct Faults {
    steps: Vec<Step>,
    next: usize,
    clocks: Vec<(String, i64, SimulatedClock)>,
    disks: [(&'static str, Arc<Disk>); 2],
    latency_ms: u64,
    story: Story,
}

/// Beginning or end of a fault.
struct Step {
    at: Duration,
    begins: bool,
    fault: Fault,
}

impl Faults {
    pub(super) fn new(
        plan: &Plan,
        clocks: Vec<(String, i64, SimulatedClock)>,
        disks: [(&'static str, Arc<Disk>); 2],
        story: Story,
    ) -> Self {
        let step = |at_ms, begins, fault: &Fault| Step { at: Duration::from_millis(at_ms), begins, fault: fault.clone() };
        let mut steps: Vec<_> =
            plan.faults.iter().flat_map(|fault| [step(fault.from_ms, true, fault), step(fault.until_ms, false, fault)]).collect();
        steps.sort_by_key(|step| (step.at, step.fault.number, !step.begins));
        Self { steps, next: 0, clocks, disks, latency_ms: plan.latency_ms, story }
    }

    /// Kills the processes that reached a crash point, and makes the changes that are due.
    pub(super) fn apply(&mut self, sim: &mut Sim<'_>) {
        for (_, disk) in &self.disks {
            for host in disk.take_crashing() {
                sim.crash(host);
            }
        }
        while let Some(step) = self.steps.get(self.next).filter(|step| step.at <= sim.elapsed()) {
            let word = if step.begins { "begins" } else { "ends" };
            self.story.tell_at(sim.elapsed(), "FAULT", format!("{} {word}: {:?}", step.fault.number, step.fault.kind));
            self.change(sim, step.begins, &step.fault.kind);
            self.next += 1;
        }
    }

    fn change(&self, sim: &mut Sim<'_>, begins: bool, kind: &FaultKind) {
        match kind {
            FaultKind::Crash { host } if begins => sim.crash(host.as_str()),
            // Another crash of the host may still last; it ends early.
            FaultKind::Crash { host } => sim.bounce(host.as_str()),
            FaultKind::CrashAtCommit { service, point } => {
                let (_, disk) = &self.disks[usize::from(*service == self.disks[1].0)];
                if begins {
                    disk.add_crash_point(point.clone());
                } else if !disk.remove_crash_point(point) {
                    sim.bounce(point.host.as_str());
                }
            }
            FaultKind::Partition { one, other } if begins => sim.partition(one.as_str(), other.as_str()),
            FaultKind::Partition { one, other } => sim.repair(one.as_str(), other.as_str()),
            FaultKind::OneWayLoss { from, to } if begins => sim.partition_oneway(from.as_str(), to.as_str()),
            FaultKind::OneWayLoss { from, to } => sim.repair(from.as_str(), to.as_str()),
            FaultKind::Hold { one, other } if begins => sim.hold(one.as_str(), other.as_str()),
            FaultKind::Hold { one, other } => sim.release(one.as_str(), other.as_str()),
            FaultKind::Delay { one, other, latency_ms } => {
                let latency = Duration::from_millis(if begins { *latency_ms } else { self.latency_ms });
                sim.set_link_max_message_latency(one.as_str(), other.as_str(), latency);
            }
            FaultKind::ClockJump { host, by_ms } => {
                for (_, skew_ms, clock) in self.clocks.iter().filter(|(name, ..)| name == host) {
                    clock.set_skew_ms(skew_ms + if begins { *by_ms } else { 0 });
                }
            }
            FaultKind::Disk { service, faults } => {
                for (_, disk) in self.disks.iter().filter(|(name, _)| name == service) {
                    disk.set_faults(if begins { *faults } else { DiskFaults::default() });
                }
            }
        }
    }
}

//! Order path: orders by one connection and by many, of one product, and after many orders, with
//! context switches and file syncs per order. The stores sync each commit.

use std::{cell::RefCell, collections::BTreeSet, fmt, fs, process::Command};

use palisade_tests::child::{Child, Signal};
use tempfile::NamedTempFile;

use super::{
    ROUNDS, Round,
    cpu_usage::{Processes, Sampler},
    load_generator::{LoadGenerator, LoadResult, Request},
    system_under_test::DurableShop,
};

/// Orders taken before the growth is measured.
const GROWN: f64 = 100_000.0;
/// Seconds of each load that grows the tables.
const GROWTH_SECONDS: u64 = 10;
/// Seconds of the load whose syncs are counted.
const SYNC_SECONDS: u64 = 3;

/// Load on the order path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OrderLoad {
    /// One connection: the latency of an order.
    Alone,
    /// All connections, 50 products.
    Spread,
    /// All connections, one product.
    Hot,
    /// As [`Self::Spread`], after [`GROWN`] orders.
    Grown,
}

/// Results of one load.
#[derive(Debug)]
pub(super) struct OrderRow {
    pub(super) stores: &'static str,
    pub(super) load: OrderLoad,
    pub(super) rounds: Vec<Round>,
    /// Calls of `fsync` and `fdatasync` per order, by services and databases.
    pub(super) syncs: f64,
}

impl fmt::Display for OrderLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "1 connection",
            Self::Spread => "64 connections, 50 products",
            Self::Hot => "64 connections, 1 product",
            Self::Grown => "64 connections, 50 products, after 100 000 orders",
        })
    }
}

/// Measures all loads, on files and on database servers.
pub(super) async fn measure(seconds: u64, progress: impl Fn(&str)) -> Vec<OrderRow> {
    let mut rows = Vec::new();
    for on_servers in [false, true] {
        let shop = DurableShop::start(on_servers).await;
        let spread = shop.orders().clone();
        let mut orders = wrk(&spread, 1).await.requests;
        for load in [OrderLoad::Alone, OrderLoad::Spread, OrderLoad::Hot, OrderLoad::Grown] {
            let mut request = spread.clone();
            match load {
                OrderLoad::Alone => request.connections = 1,
                OrderLoad::Hot => request.products.truncate(1),
                OrderLoad::Grown => {
                    while orders < GROWN {
                        orders += wrk(&spread, GROWTH_SECONDS).await.requests;
                    }
                }
                OrderLoad::Spread => {}
            }
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let sampler = Sampler::start(&shop.system.processes);
                let answered = wrk(&request, seconds).await;
                rounds.push(Round::new(&answered, &sampler.stop()));
                orders += answered.requests;
            }
            let syncs = syncs_per_order(&shop.system.processes, &request).await;
            let row = OrderRow { stores: shop.system.stores, load, rounds, syncs };
            progress(&format!("{row:?}"));
            rows.push(row);
        }
    }
    rows
}

async fn wrk(request: &Request, seconds: u64) -> LoadResult {
    LoadGenerator::Wrk.load(request, seconds).await
}

/// Counts the syncs of a load of its own, because the tracer slows the traced processes down.
async fn syncs_per_order(processes: &Processes, request: &Request) -> f64 {
    let found = Command::new("strace").arg("-V").output().is_ok();
    assert!(found, "strace is missing, needed only by `make performance`: `apt-get install strace` (Debian, Ubuntu)");
    let summary = NamedTempFile::new().expect("a temporary file can be made");
    let ids = processes.ids();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-o"]).arg(summary.path());
    for id in &ids {
        strace.args(["-p", &id.to_string()]);
    }
    let mut strace = Child::spawn(&strace, None, Signal::INT).expect("strace can be started");
    let waiting = RefCell::new(ids.into_iter().collect::<BTreeSet<_>>());
    let attached = strace.wait_for_line(|line| {
        let mut waiting = waiting.borrow_mut();
        waiting.retain(|id| !is_settled(line, *id));
        waiting.is_empty().then_some(())
    });
    assert!(attached.is_some(), "not traced (as another user than root, `sysctl kernel.yama.ptrace_scope=0`): {}", strace.last_lines());
    let orders = wrk(request, SYNC_SECONDS).await.requests;
    strace.signal(Signal::INT);
    strace.wait().expect("strace ends after SIGINT");
    let summary = fs::read_to_string(summary.path()).expect("strace writes its summary");
    total_calls(&summary) / orders
}

/// Whether strace reports in `line` that the process is traced, or has ended before.
fn is_settled(line: &str, id: u32) -> bool {
    line.contains(&format!("Process {id} attached")) || (line.contains("attach: ptrace(") && line.contains(&format!(", {id})")))
}

/// Reads the number of calls from the last line of a summary of strace. An empty summary means no
/// call, one of another form is no figure.
fn total_calls(summary: &str) -> f64 {
    if summary.trim().is_empty() {
        return 0.0;
    }
    let total = summary.lines().rev().find(|line| line.ends_with(" total"));
    total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_is_traced_or_gone() {
        assert!(is_settled("strace: Process 12 attached with 9 threads", 12));
        assert!(is_settled("strace: attach: ptrace(PTRACE_SEIZE, 12): No such process", 12));
        assert!(!is_settled("strace: Process 123 attached", 12));
    }

    #[test]
    fn calls_are_read_from_a_summary() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                       ------ ----------- ----------- --------- --------- ----------------\n \
                       90.00    0.184902         342       540           fdatasync\n \
                       10.00    0.020000         500        40           fsync\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       100.00    0.204902         353       580           total\n";
        assert!((total_calls(summary) - 580.0).abs() < f64::EPSILON);
        assert!(total_calls("").abs() < f64::EPSILON, "no call, no summary");
        assert!(total_calls("fsync: 580").is_nan());
    }
}

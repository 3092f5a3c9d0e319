//! Process and Tokio runtime metrics, read at every scrape.

use metrics::Gauge;
use metrics_process::Collector;
use tokio::runtime::{Handle, RuntimeMetrics};

use palisade_resilience::metrics::as_f64;

/// Sources and gauges.
#[derive(Clone)]
pub(super) struct Process {
    collector: Collector,
    runtime: RuntimeMetrics,
    workers: Gauge,
    busy: Gauge,
    alive: Gauge,
    queued: Gauge,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Process")
    }
}

impl Process {
    /// Creates the gauges for this process and the current runtime.
    pub(super) fn this() -> Self {
        let process = Self {
            collector: Collector::default(),
            runtime: Handle::current().metrics(),
            workers: metrics::gauge!("tokio.workers"),
            busy: metrics::gauge!("tokio_busy_seconds_total"),
            alive: metrics::gauge!("tokio.alive_tasks"),
            queued: metrics::gauge!("tokio.global_queue.depth"),
        };
        process.measure();
        process
    }

    /// Updates the gauges. Reads a few files of `/proc`.
    pub(super) fn measure(&self) {
        self.collector.collect();
        let workers = self.runtime.num_workers();
        let busy = (0..workers).map(|worker| self.runtime.worker_total_busy_duration(worker).as_secs_f64());
        self.workers.set(as_f64(workers));
        self.busy.set(busy.sum::<f64>());
        self.alive.set(as_f64(self.runtime.num_alive_tasks()));
        self.queued.set(as_f64(self.runtime.global_queue_depth()));
    }
}

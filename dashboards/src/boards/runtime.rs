//! Runtime dashboard: readiness, process resources (utilisation, saturation, errors), Tokio,
//! background jobs.

use super::every_process;
use crate::{
    dashboard::Dashboard,
    panel::{Color, Panel, stat, state_timeline, table, timeseries, unit},
    query::metric,
};

const PROCESS: [&str; 2] = ["job", "instance"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Readiness of the processes, their resources and background jobs.";
    Dashboard::new("runtime", "Palisade / 11 Runtime", about)
        .row("Readiness", readiness())
        .row("Process", process())
        .row("Tokio", tokio())
        .row("Background jobs", jobs())
}

/// Value mappings of `palisade_ready` and `palisade_dependency_up`.
pub(super) const READY_STATES: &[(u8, &str, Color)] = &[(0, "no", Color::Red), (1, "yes", Color::Green)];

fn readiness() -> [Panel; 2] {
    [
        state_timeline("Ready")
            .description("Whether a replica accepts requests.")
            .remediation("`/readyz` on the admin port has the failed dependency and the reason.")
            .unit(unit::COUNT)
            .values(READY_STATES)
            .runbook("NotReady")
            .query(metric("palisade.ready").now().max_by(PROCESS)),
        state_timeline("Failing dependencies")
            .description("Stores, upstreams, brokers and background jobs whose probes failed in the time range: red while they fail.")
            .remediation("\"Ready\" is red, too: the replica needs it and accepts no requests. Otherwise it works without. `/readyz` has the reason.")
            .unit(unit::COUNT)
            .values(READY_STATES)
            .without_data("No dependency failed")
            .runbook("DependencyDown")
            .query(
                metric("palisade.dependency.up")
                    .now()
                    .min_by(["job", "instance", "dependency"])
                    .failing()
                    .may_be_absent("no dependency fails in a healthy system"),
            ),
    ]
    .map(|panel| panel.sized(12, 8))
}

fn process() -> [Panel; 8] {
    let started = metric("process_start_time_seconds");
    [
        timeseries("CPU cores used")
            .description("CPU seconds per second. 1 is one core.")
            .remediation("At the number of cores or the container limit: CPU-bound, add replicas.")
            .unit(unit::NUMBER)
            .query(metric("process_cpu_seconds_total").rate().sum_by(PROCESS)),
        timeseries("Resident memory")
            .description("Resident set size.")
            .remediation("Should level off under constant load. Otherwise: a leak, or a limit that is too high.")
            .unit(unit::BYTES)
            .query(metric("process_resident_memory_bytes").now().sum_by(PROCESS)),
        timeseries("Open FDs / max")
            .description("Open file descriptors divided by the maximum. Each connection uses one.")
            .remediation("Above 80 %: connections leak, or `ulimit -n` is too low. At 100 % new connections are not accepted.")
            .share(0.6, 0.8)
            .runbook("FdsNearLimit")
            .query(metric("process_open_fds").now().sum_by(PROCESS) / metric("process_max_fds").now().sum_by(PROCESS)),
        timeseries("Open FDs")
            .description("Open file descriptors.")
            .remediation("Should follow the number of connections. Stepwise growth is a leak.")
            .unit(unit::COUNT)
            .runbook("FdsNearLimit")
            .query(metric("process_open_fds").now().sum_by(PROCESS)),
        timeseries("Threads")
            .description("OS threads: Tokio workers, blocking pool and a few more.")
            .remediation("Hundreds: much concurrent blocking work, e.g. caused by a hanging store.")
            .unit(unit::COUNT)
            .query(metric("process_threads").now().sum_by(PROCESS)),
        stat("Uptime")
            .description("Time since the process started.")
            .remediation("Repeatedly short: the process crashes. The log of the previous run has the reason.")
            .unit(unit::SECONDS)
            .runbook("RestartLoop")
            .query(started.clone().now().max_by(PROCESS).age()),
        timeseries("Restarts")
            .description("Restarts in the selected time range.")
            .remediation("More than a rollout explains: the process crashes, or its liveness probe fails.")
            .unit(unit::COUNT)
            .limits(1.0, 3.0)
            .runbook("RestartLoop")
            .query(started.changes_in_range().sum_by(["job"]).or_zero(&every_process())),
        table("Versions")
            .description("Running versions by instance.")
            .remediation("Two versions of one job: a rollout is in progress or stuck.")
            .unit(unit::COUNT)
            .query(metric("build.info").now().max_by(["job", "instance", "version", "revision"])),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn jobs() -> [Panel; 3] {
    const JOB: [&str; 3] = ["job", "instance", "name"];
    [
        timeseries("Job restarts / min")
            .description("Restarts of background jobs after a panic, an error or an early end.")
            .remediation("The log names the job and the cause. `GET /readyz` shows whether the service works without it.")
            .unit(unit::PER_MINUTE)
            .limit(0.1)
            .query(metric("palisade.job.restarts").rate().sum_by(["job", "name"]).per_minute()),
        timeseries("Job failures in a row")
            .description("Failures of background jobs since their last success.")
            .remediation("Usually a dependency is down: see `GET /readyz`. Otherwise the log has the cause.")
            .unit(unit::COUNT)
            .limits(1.0, 5.0)
            .query(metric("palisade.job.failures").now().max_by(JOB)),
        timeseries("Time since job success")
            .description(
                "Time since each background job last did its work, or found none. A saw tooth: a job runs every second, or once an hour.",
            )
            .remediation("Higher than its own tooth and growing, without failures: the job hangs. Restart the process and keep its log.")
            .unit(unit::SECONDS)
            .query(metric("palisade.job.last_success").now().max_by(JOB).above(0.0).age()),
    ]
    .map(|panel| panel.sized(8, 8))
}

fn tokio() -> [Panel; 4] {
    let workers = metric("tokio.workers").now().sum_by(PROCESS);
    [
        timeseries("Worker busy ratio")
            .description("Share of worker time spent running tasks.")
            .remediation("Above 90 %: tasks wait for a worker. With low CPU usage, a task blocks a worker.")
            .share(0.7, 0.9)
            .runbook("TokioSaturated")
            .query(metric("tokio_busy_seconds_total").rate().sum_by(PROCESS) / workers),
        timeseries("Global queue depth")
            .description("Tasks in Tokio's global queue.")
            .remediation("Constantly more than a few: too few workers, or blocked workers.")
            .unit(unit::COUNT)
            .runbook("TokioSaturated")
            .query(metric("tokio.global_queue.depth").now().sum_by(PROCESS)),
        timeseries("Live tasks")
            .description("Unfinished tasks: connections, requests, background workers.")
            .remediation("Should follow the load. Constant growth is a task leak.")
            .unit(unit::COUNT)
            .query(metric("tokio.alive_tasks").now().sum_by(PROCESS)),
        timeseries("Workers")
            .description("Tokio worker threads.")
            .remediation("Defaults to the number of cores and is constant while the process runs.")
            .unit(unit::COUNT)
            .query(metric("tokio.workers").now().sum_by(PROCESS)),
    ]
    .map(|panel| panel.sized(6, 8))
}

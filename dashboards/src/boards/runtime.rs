//! The processes themselves (utilisation, saturation, errors), their runtime, and the pipeline of spans, logs and metrics.

use super::every_process;
use crate::{
    dashboard::Dashboard,
    panel::{Panel, areas, graph, number, table, unit},
    query::{foreign, metric},
};

const PROCESS: [&str; 2] = ["job", "instance"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Whether a process is short of something, and whether what we see of it is all there is.";
    Dashboard::new("runtime", "Palisade / 7 Runtime and telemetry", about)
        .row("Process", process())
        .row("Tokio", tokio())
        .row("Spans and logs", pipeline())
        .row("Scrapes", scrapes())
}

fn process() -> [Panel; 8] {
    let started = metric("process_start_time_seconds");
    [
        graph("CPU cores used")
            .tells("Processor time per second: 1 is one core.")
            .if_bad("At the number of cores, or the container's limit, everything waits: more replicas.")
            .unit(unit::NUMBER)
            .query(metric("process_cpu_seconds_total").rate().sum_by(PROCESS)),
        graph("Resident memory")
            .tells("Memory in use.")
            .if_bad("It should level off under constant load. If not: a leak, or a limit that is too high.")
            .unit(unit::BYTES)
            .query(metric("process_resident_memory_bytes").now().sum_by(PROCESS)),
        graph("Open FDs / max")
            .tells("File descriptors open by those allowed. Each connection is one.")
            .if_bad("Above 80 %: connections leak, or `ulimit -n` is too low. At 100 % no connection is accepted.")
            .share(0.6, 0.8)
            .runbook("FdsNearLimit")
            .query(metric("process_open_fds").now().sum_by(PROCESS) / metric("process_max_fds").now().sum_by(PROCESS)),
        graph("Open FDs")
            .tells("File descriptors open.")
            .if_bad("It should follow the connections. A staircase upwards is a leak.")
            .unit(unit::COUNT)
            .runbook("FdsNearLimit")
            .query(metric("process_open_fds").now().sum_by(PROCESS)),
        graph("Threads")
            .tells("Threads: the workers, those for blocking work, and a few more.")
            .if_bad("Hundreds: much blocking work at once, as a store that hangs makes it.")
            .unit(unit::COUNT)
            .query(metric("process_threads").now().sum_by(PROCESS)),
        number("Uptime")
            .tells("Time since the process started.")
            .if_bad("Short and short again: it crashes; the log of the one before says why.")
            .unit(unit::SECONDS)
            .runbook("RestartLoop")
            .query(started.clone().now().max_by(PROCESS).ago()),
        graph("Restarts shown")
            .tells("Restarts in all the time that is shown.")
            .if_bad("More than a rollout explains: it crashes, or its liveness check fails.")
            .unit(unit::COUNT)
            .limits(1.0, 3.0)
            .runbook("RestartLoop")
            .query(started.changes_shown().sum_by(["job"]).or_zero(&every_process())),
        table("Versions")
            .tells("What runs where.")
            .if_bad("Two versions of one job are a rollout under way, or one that stands.")
            .unit(unit::COUNT)
            .query(metric("build.info").now().max_by(["job", "instance", "version", "revision"])),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn tokio() -> [Panel; 4] {
    let workers = metric("tokio.workers").now().sum_by(PROCESS);
    [
        graph("Worker busy ratio")
            .tells("Share of the workers' time in which they ran tasks.")
            .if_bad("Above 90 %: tasks wait for a worker. If the processor is not busy too, a task blocks one.")
            .share(0.7, 0.9)
            .runbook("TokioSaturated")
            .query(metric("tokio_busy_seconds_total").rate().sum_by(PROCESS) / workers),
        graph("Global queue depth")
            .tells("Tasks that wait for any worker.")
            .if_bad("More than a few for long: the workers are too few or blocked.")
            .unit(unit::COUNT)
            .runbook("TokioSaturated")
            .query(metric("tokio.global_queue.depth").now().sum_by(PROCESS)),
        graph("Live tasks")
            .tells("Tasks that have not ended: connections, requests, workers.")
            .if_bad("It should follow the load. If it only grows, tasks wait for what never comes.")
            .unit(unit::COUNT)
            .query(metric("tokio.alive_tasks").now().sum_by(PROCESS)),
        graph("Workers")
            .tells("Worker threads of the runtime.")
            .if_bad("It is the number of cores unless somebody set it; it does not change while the process runs.")
            .unit(unit::COUNT)
            .query(metric("tokio.workers").now().sum_by(PROCESS)),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn pipeline() -> [Panel; 6] {
    let spans = |name: &str| metric(name);
    let processed = "otel.sdk.processor.span.processed";
    let exported = "otel.sdk.exporter.span.exported";
    let exports = metric("otel.sdk.exporter.operation.duration").quantile(0.95, ["job"]);
    [
        graph("Spans started / s")
            .tells("Spans begun.")
            .if_bad("0 under load: traces are off, or sampled away.")
            .unit(unit::PER_SECOND)
            .query(spans("otel.sdk.span.started").rate().sum_by(["job"]).or_zero(&every_process())),
        graph("Spans dropped / s")
            .tells("Spans for which the queue had no room.")
            .if_bad("The collector is slow, or the queue is too short for this load. Sample less, or make it longer.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .runbook("TelemetryLoss")
            .query(spans(processed).is_not("error.type", "").rate().sum_by(["job"]).or_zero(&every_process())),
        graph("Spans exported / failed per s")
            .tells("Spans that the collector took, and those that it did not, by the kind of error.")
            .if_bad("`failed`, `timeout`: the collector is down or slow; what it did not take is lost.")
            .unit(unit::PER_SECOND)
            .runbook("TelemetryLoss")
            .query(spans(exported).rate().sum_by(["job", "error.type"]).or_zero(&every_process())),
        graph("Export p95")
            .tells("How long exports take.")
            .if_bad("Seconds: the collector does not keep up; the queue fills next.")
            .unit(unit::SECONDS)
            .limits(1.0, 5.0)
            .query(exports.sparse("only where a collector is configured")),
        areas("Log lines / s by level")
            .tells("Log lines written, by level.")
            .if_bad("`error`: read them, each is written once. `debug` in production: somebody left it on.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.log.lines").rate().sum_by(["job", "level"]).or_zero(&every_process())),
        graph("Log lines dropped / s")
            .tells("Log lines lost because the writer could not keep up.")
            .if_bad("Whoever reads standard output is slow, or the level is too low.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .query(metric("palisade.log.dropped").rate().sum_by(["job"]).or_zero(&every_process())),
    ]
}

fn scrapes() -> [Panel; 3] {
    [
        graph("Scrape duration")
            .tells("How long Prometheus takes to read the metrics of a process.")
            .if_bad("Seconds: the process is starved, or has far too many series.")
            .unit(unit::SECONDS)
            .limits(1.0, 5.0)
            .query(foreign("scrape_duration_seconds").now().max_by(PROCESS)),
        graph("Samples per scrape (cardinality)")
            .tells("Series that a process has.")
            .if_bad("It should level off in minutes. If it grows with traffic, a label is not bounded: that is a bug.")
            .unit(unit::COUNT)
            .limits(5000.0, 10000.0)
            .runbook("CardinalityHigh")
            .query(foreign("scrape_samples_scraped").now().max_by(PROCESS)),
        graph("New series per scrape")
            .tells("Series that the scrape before did not have.")
            .if_bad("Some after a start; for ever: a label is not bounded.")
            .unit(unit::COUNT)
            .runbook("CardinalityHigh")
            .query(foreign("scrape_series_added").now().max_by(PROCESS)),
    ]
}

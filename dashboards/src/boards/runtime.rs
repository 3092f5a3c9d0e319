//! The processes themselves (utilisation, saturation, errors), their runtime, and the pipeline of spans, logs and metrics.

use super::every_process;
use crate::{
    dashboard::Dashboard,
    panel::{Panel, stacked_timeseries, timeseries, stat, table, unit},
    query::{external_metric, metric},
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
        timeseries("CPU cores used")
            .description("Processor time per second: 1 is one core.")
            .remediation("At the number of cores, or the container's limit, everything waits: more replicas.")
            .unit(unit::NUMBER)
            .query(metric("process_cpu_seconds_total").rate().sum_by(PROCESS)),
        timeseries("Resident memory")
            .description("Memory in use.")
            .remediation("It should level off under constant load. If not: a leak, or a limit that is too high.")
            .unit(unit::BYTES)
            .query(metric("process_resident_memory_bytes").now().sum_by(PROCESS)),
        timeseries("Open FDs / max")
            .description("File descriptors open by those allowed. Each connection is one.")
            .remediation("Above 80 %: connections leak, or `ulimit -n` is too low. At 100 % no connection is accepted.")
            .share(0.6, 0.8)
            .runbook("FdsNearLimit")
            .query(metric("process_open_fds").now().sum_by(PROCESS) / metric("process_max_fds").now().sum_by(PROCESS)),
        timeseries("Open FDs")
            .description("File descriptors open.")
            .remediation("It should follow the connections. A staircase upwards is a leak.")
            .unit(unit::COUNT)
            .runbook("FdsNearLimit")
            .query(metric("process_open_fds").now().sum_by(PROCESS)),
        timeseries("Threads")
            .description("Threads: the workers, those for blocking work, and a few more.")
            .remediation("Hundreds: much blocking work at once, as a store that hangs makes it.")
            .unit(unit::COUNT)
            .query(metric("process_threads").now().sum_by(PROCESS)),
        stat("Uptime")
            .description("Time since the process started.")
            .remediation("Short and short again: it crashes; the log of the one before says why.")
            .unit(unit::SECONDS)
            .runbook("RestartLoop")
            .query(started.clone().now().max_by(PROCESS).age()),
        timeseries("Restarts shown")
            .description("Restarts in all the time that is shown.")
            .remediation("More than a rollout explains: it crashes, or its liveness check fails.")
            .unit(unit::COUNT)
            .limits(1.0, 3.0)
            .runbook("RestartLoop")
            .query(started.changes_shown().sum_by(["job"]).or_zero(&every_process())),
        table("Versions")
            .description("What runs where.")
            .remediation("Two versions of one job are a rollout under way, or one that stands.")
            .unit(unit::COUNT)
            .query(metric("build.info").now().max_by(["job", "instance", "version", "revision"])),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn tokio() -> [Panel; 4] {
    let workers = metric("tokio.workers").now().sum_by(PROCESS);
    [
        timeseries("Worker busy ratio")
            .description("Share of the workers' time in which they ran tasks.")
            .remediation("Above 90 %: tasks wait for a worker. If the processor is not busy too, a task blocks one.")
            .share(0.7, 0.9)
            .runbook("TokioSaturated")
            .query(metric("tokio_busy_seconds_total").rate().sum_by(PROCESS) / workers),
        timeseries("Global queue depth")
            .description("Tasks that wait for any worker.")
            .remediation("More than a few for long: the workers are too few or blocked.")
            .unit(unit::COUNT)
            .runbook("TokioSaturated")
            .query(metric("tokio.global_queue.depth").now().sum_by(PROCESS)),
        timeseries("Live tasks")
            .description("Tasks that have not ended: connections, requests, workers.")
            .remediation("It should follow the load. If it only grows, tasks wait for what never comes.")
            .unit(unit::COUNT)
            .query(metric("tokio.alive_tasks").now().sum_by(PROCESS)),
        timeseries("Workers")
            .description("Worker threads of the runtime.")
            .remediation("It is the number of cores unless somebody set it; it does not change while the process runs.")
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
        timeseries("Spans started / s")
            .description("Spans begun.")
            .remediation("0 under load: traces are off, or sampled away.")
            .unit(unit::PER_SECOND)
            .query(spans("otel.sdk.span.started").rate().sum_by(["job"]).or_zero(&every_process())),
        timeseries("Spans dropped / s")
            .description("Spans for which the queue had no room.")
            .remediation("The collector is slow, or the queue is too short for this load. Sample less, or make it longer.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .runbook("TelemetryLoss")
            .query(spans(processed).is_not("error.type", "").rate().sum_by(["job"]).or_zero(&every_process())),
        timeseries("Spans exported / failed per s")
            .description("Spans that the collector took, and those that it did not, by the kind of error.")
            .remediation("`failed`, `timeout`: the collector is down or slow; what it did not take is lost.")
            .unit(unit::PER_SECOND)
            .runbook("TelemetryLoss")
            .query(spans(exported).rate().sum_by(["job", "error.type"]).or_zero(&every_process())),
        timeseries("Export p95")
            .description("How long exports take.")
            .remediation("Seconds: the collector does not keep up; the queue fills next.")
            .unit(unit::SECONDS)
            .limits(1.0, 5.0)
            .query(exports.may_be_absent("only where a collector is configured")),
        stacked_timeseries("Log lines / s by level")
            .description("Log lines written, by level.")
            .remediation("`error`: read them, each is written once. `debug` in production: somebody left it on.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.log.lines").rate().sum_by(["job", "level"]).or_zero(&every_process())),
        timeseries("Log lines dropped / s")
            .description("Log lines lost because the writer could not keep up.")
            .remediation("Whoever reads standard output is slow, or the level is too low.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .query(metric("palisade.log.dropped").rate().sum_by(["job"]).or_zero(&every_process())),
    ]
}

fn scrapes() -> [Panel; 3] {
    [
        timeseries("Scrape duration")
            .description("How long Prometheus takes to read the metrics of a process.")
            .remediation("Seconds: the process is starved, or has far too many series.")
            .unit(unit::SECONDS)
            .limits(1.0, 5.0)
            .query(external_metric("scrape_duration_seconds").now().max_by(PROCESS)),
        timeseries("Samples per scrape (cardinality)")
            .description("Series that a process has.")
            .remediation("It should level off in minutes. If it grows with traffic, a label is not bounded: that is a bug.")
            .unit(unit::COUNT)
            .limits(5000.0, 10000.0)
            .runbook("CardinalityHigh")
            .query(external_metric("scrape_samples_scraped").now().max_by(PROCESS)),
        timeseries("New series per scrape")
            .description("Series that the scrape before did not have.")
            .remediation("Some after a start; for ever: a label is not bounded.")
            .unit(unit::COUNT)
            .runbook("CardinalityHigh")
            .query(external_metric("scrape_series_added").now().max_by(PROCESS)),
    ]
}

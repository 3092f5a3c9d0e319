//! Telemetry dashboard: pipelines for spans, logs and metrics.

use super::every_process;
use crate::{
    dashboard::Dashboard,
    panel::{Panel, stacked_timeseries, timeseries, unit},
    query::{external_metric, metric},
};

const PROCESS: [&str; 2] = ["job", "instance"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Completeness of traces, logs and metrics.";
    Dashboard::new("telemetry", "Palisade / 12 Telemetry", about).row("Spans and logs", pipeline()).row("Scrapes", scrapes())
}

fn pipeline() -> [Panel; 7] {
    let spans = |name: &str| metric(name);
    let processed = "otel.sdk.processor.span.processed";
    let exported = "otel.sdk.exporter.span.exported";
    let exports = metric("otel.sdk.exporter.operation.duration").quantile(0.95, ["job"]);
    [
        timeseries("Spans started / s")
            .description("Started spans.")
            .remediation("0 under load: tracing is off or the sampling ratio is 0.")
            .unit(unit::PER_SECOND)
            .query(spans("otel.sdk.span.started").rate().sum_by(["job"]).or_zero(&every_process())),
        timeseries("Spans dropped / s")
            .description("Spans dropped because the export queue was full.")
            .remediation("The collector is slow, or the queue is too small for this load. Lower the sampling ratio or enlarge the queue.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .runbook("TelemetryLoss")
            .query(spans(processed).is_not("error.type", "").rate().sum_by(["job"]).or_zero(&every_process())),
        timeseries("Spans exported / failed per s")
            .description("Exported spans, and failed exports by error type.")
            .remediation("`failed`, `timeout`: the collector is down or slow. Spans that are not exported are lost.")
            .unit(unit::PER_SECOND)
            .runbook("TelemetryLoss")
            .query(spans(exported).rate().sum_by(["job", "error.type"]).or_zero(&every_process())),
        timeseries("Traces of failed requests / s")
            .description("Unsampled traces of failed and slow requests by outcome.")
            .remediation("`over_budget`: more failures of one kind than are exported. `expired`: raise `telemetry.held_traces`.")
            .unit(unit::PER_SECOND)
            .query(spans("palisade.tail_sampling.traces").rate().sum_by(["job", "outcome"]).or_zero(&every_process()))
            .sized(6, 8),
        timeseries("Export p95")
            .description("95th percentile of export durations.")
            .remediation("Seconds: the collector is overloaded, and the queue will fill up.")
            .unit(unit::SECONDS)
            .limits(1.0, 5.0)
            .query(exports.may_be_absent("present only if a collector is configured"))
            .sized(6, 8),
        stacked_timeseries("Log records / s by level")
            .description("Written log records by level.")
            .remediation("`error`: read them. `debug` in production: a log filter was left on.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.log.records").rate().sum_by(["job", "level"]).or_zero(&every_process()))
            .sized(6, 8),
        timeseries("Log records dropped / s")
            .description("Log records dropped because the writer could not keep up.")
            .remediation("The reader of standard error is slow, or the log level is too verbose.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .query(metric("palisade.log.dropped").rate().sum_by(["job"]).or_zero(&every_process()))
            .sized(6, 8),
    ]
}

fn scrapes() -> [Panel; 3] {
    [
        timeseries("Scrape duration")
            .description("Duration of a Prometheus scrape.")
            .remediation("Seconds: the process is starved of CPU or exports too many series.")
            .unit(unit::SECONDS)
            .limits(1.0, 5.0)
            .query(external_metric("scrape_duration_seconds").now().max_by(PROCESS)),
        timeseries("Samples per scrape (cardinality)")
            .description("Exported series per process.")
            .remediation("Should level off within minutes. Growth with traffic: an unbounded label, which is a bug.")
            .unit(unit::COUNT)
            .limits(5000.0, 10000.0)
            .runbook("CardinalityHigh")
            .query(external_metric("scrape_samples_scraped").now().max_by(PROCESS)),
        timeseries("New series per scrape")
            .description("Series that were not in the previous scrape.")
            .remediation("A few after a start are normal. Continuous: an unbounded label.")
            .unit(unit::COUNT)
            .runbook("CardinalityHigh")
            .query(external_metric("scrape_series_added").now().max_by(PROCESS)),
    ]
}

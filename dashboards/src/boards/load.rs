//! Load test dashboard: k6's client-side metrics next to the server metrics.

use super::{every_process, http_errors, http_requests};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, stat, timeseries, unit},
    query::{Query, Series, external_metric, metric},
};

const K6: &str = "present only while k6 runs and writes to this Prometheus";

pub(super) fn dashboard() -> Dashboard {
    let about = "k6 metrics next to server metrics. k6 sends them with `K6_PROMETHEUS_RW_SERVER_URL`, `--out experimental-prometheus-rw` and \
                 `K6_PROMETHEUS_RW_TREND_STATS=p(95)`.";
    Dashboard::new("load", "Palisade / 13 Load test", about)
        .row("k6", k6())
        .row("Client and server", client_and_server())
        .row("Servers", servers())
}

/// Marks a k6 query as absent unless a load test runs.
fn absent_without_k6(query: Query) -> Query {
    query.may_be_absent(K6)
}

fn requests() -> Series {
    external_metric("k6_http_reqs_total")
}

fn k6() -> [Panel; 8] {
    let p95 = external_metric("k6_http_req_duration_p95").now().max_by(["scenario"]);
    [
        timeseries("k6 requests / s")
            .description("Requests sent by k6, by scenario.")
            .remediation("Below the scenario's rate: k6 has too few virtual users, or the servers are slow.")
            .unit(unit::REQUESTS)
            .query(absent_without_k6(requests().rate().sum_by(["scenario"]))),
        timeseries("k6 p95")
            .description("95th percentile measured by k6, slowest request type of each scenario.")
            .remediation("Compare with the server p95 below: the difference is the network or k6 itself.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(absent_without_k6(p95)),
        timeseries("k6 VUs")
            .description("Active virtual users and their maximum.")
            .remediation("At the maximum with dropped iterations: k6 limits the test, not the servers.")
            .unit(unit::COUNT)
            .query(absent_without_k6(external_metric("k6_vus").now().sum_by([]).legend_prefix("active")))
            .query(absent_without_k6(external_metric("k6_vus_max").now().sum_by([]).legend_prefix("maximum"))),
        timeseries("k6 check pass ratio")
            .description("Pass ratio of the k6 checks, by check.")
            .remediation("A response is wrong, not just slow: see k6's output for the check.")
            .share_of_good(1.0, 0.99)
            .query(absent_without_k6(external_metric("k6_checks_rate").now().max_by(["check"]))),
        timeseries("k6 failed requests")
            .description("Share of requests that k6 counts as failed, worst request type of each scenario.")
            .remediation("More than the server's errors: connections are refused or closed.")
            .errors()
            .query(absent_without_k6(external_metric("k6_http_req_failed_rate").now().max_by(["scenario"]))),
        stacked_timeseries("k6 requests / s by status")
            .description("Responses received by k6, by status.")
            .remediation("Status 0: no response. 429, 503: rate limiting or load shedding.")
            .unit(unit::REQUESTS)
            .query(absent_without_k6(requests().rate().sum_by(["status"]))),
        timeseries("k6 iterations / s")
            .description("Completed iterations by scenario.")
            .remediation("Falls at a constant number of users: each iteration takes longer.")
            .unit(unit::PER_SECOND)
            .query(absent_without_k6(external_metric("k6_iterations_total").rate().sum_by(["scenario"]))),
        timeseries("k6 dropped iterations / s")
            .description("Iterations not started for lack of a free virtual user.")
            .remediation("The test did not generate its configured load, so its results are too optimistic.")
            .unit(unit::PER_SECOND)
            .limit(0.01)
            .query(absent_without_k6(external_metric("k6_dropped_iterations_total").rate().sum_by(["scenario"]))),
    ]
    .map(|panel| panel.sized(6, 8).without_data("k6 does not run, or is not configured"))
}

fn client_and_server() -> [Panel; 3] {
    [
        timeseries("Server p95 vs client p95")
            .description("95th percentile of request durations, measured by the gateway and by k6.")
            .remediation("Growing gap: requests queue before the gateway reads them, or k6 is saturated.")
            .unit(unit::SECONDS)
            .traces(Traces::GATEWAY.slow())
            .query(http_requests().quantile(0.95, []).legend_prefix("server"))
            .query(absent_without_k6(external_metric("k6_http_req_duration_p95").now().max_by([]).legend_prefix("k6"))),
        timeseries("Server rate vs client rate")
            .description("Requests served by the gateway and sent by k6.")
            .remediation("Fewer served than sent: connections are refused before a request is read.")
            .unit(unit::REQUESTS)
            .query(http_requests().count().rate().sum_by([]).legend_prefix("server"))
            .query(absent_without_k6(requests().rate().sum_by([]).legend_prefix("k6"))),
        timeseries("Server errors vs client failures")
            .description("Share of 5xx measured by the gateway and of failures measured by k6. k6 counts 4xx too.")
            .remediation("Failures only in k6: check the status codes, then the closed connections.")
            .errors()
            .query(http_errors([]).legend_prefix("server"))
            .query(absent_without_k6(external_metric("k6_http_req_failed_rate").now().max_by([]).legend_prefix("k6"))),
    ]
}

fn servers() -> [Panel; 6] {
    let limiter = ["job", "limiter"];
    let cpu_rate = || metric("process_cpu_seconds_total").rate();
    [
        stacked_timeseries("Shed / s")
            .description("Shed requests by reason. Beyond capacity they should grow with the load while p95 stays flat.")
            .remediation("None under overload and p95 in seconds: the limits are too high.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .query(metric("palisade.requests.shed").rate().sum_by(["job", "reason"]).or_zero(&every_process())),
        timeseries("Concurrency used / limit")
            .description("Utilisation of each concurrency limit.")
            .remediation("The limit at 100 % is the bottleneck.")
            .share(0.7, 0.9)
            .query(
                metric("palisade.concurrency.in_use").now().sum_by(limiter) / metric("palisade.concurrency.limit").now().sum_by(limiter),
            ),
        timeseries("CPU cores used")
            .description("CPU seconds per second of each service. 1 is one core.")
            .remediation("A service at its CPU limit determines the capacity of the whole system.")
            .unit(unit::NUMBER)
            .query(cpu_rate().sum_by(["job"])),
        timeseries("CPU per request")
            .description("CPU time of all services per HTTP request.")
            .remediation("Higher than in the last test: a regression. Use this number to compare machines.")
            .unit(unit::SECONDS)
            .query((cpu_rate().sum_by([]) / http_requests().count().rate().sum_by([])).legend_prefix("CPU")),
        timeseries("Resident memory")
            .description("Resident set size.")
            .remediation("Growth under constant load is a leak.")
            .unit(unit::BYTES)
            .query(metric("process_resident_memory_bytes").now().sum_by(["job", "instance"])),
        stat("Invariant violations")
            .description("Invariant violations found by the audits. Must stay 0 during a load test.")
            .remediation("`GET /invariants` on the admin ports lists them.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("StockInvariantViolated")
            .query(metric("palisade.invariant.violations").now().max_by(["check"]))
            .sized(8, 8),
    ]
}

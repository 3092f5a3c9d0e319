//! A load test from both sides: what k6 sends and sees, beside what the servers say.

use super::{every_process, http, http_errors};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, timeseries, stat, unit},
    query::{Query, Series, external_metric, metric},
};

const K6: &str = "only while k6 runs and writes to this Prometheus";

pub(super) fn dashboard() -> Dashboard {
    let about = "k6 beside the servers. k6 writes here by `K6_PROMETHEUS_RW_SERVER_URL` and `--out experimental-prometheus-rw`, with \
                 `K6_PROMETHEUS_RW_TREND_STATS=p(95)`.";
    Dashboard::new("load", "Palisade / 8 Load test", about).row("k6", k6()).row("Both sides", both()).row("Servers", servers())
}

/// Quiet whenever no test runs.
fn seldom(query: Query) -> Query {
    query.may_be_absent(K6)
}

fn requests() -> Series {
    external_metric("k6_http_reqs_total")
}

fn k6() -> [Panel; 8] {
    let late = external_metric("k6_http_req_duration_p95").now().max_by(["scenario"]);
    [
        timeseries("k6 requests / s")
            .description("Requests that k6 sends, by scenario.")
            .remediation("Below what the scenario says: k6 has too few virtual users, or the servers are slow.")
            .unit(unit::REQUESTS)
            .query(seldom(requests().rate().sum_by(["scenario"]))),
        timeseries("k6 p95")
            .description("How long requests take for k6, the slowest kind of request of each scenario.")
            .remediation("See both sides below: what the server does not see is the network, or k6 itself.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(seldom(late)),
        timeseries("k6 VUs")
            .description("Virtual users at work, and how many there may be.")
            .remediation("At the maximum with iterations dropped: the test is limited by k6, not by the servers.")
            .unit(unit::COUNT)
            .query(seldom(external_metric("k6_vus").now().sum_by([]).legend_prefix("at work")))
            .query(seldom(external_metric("k6_vus_max").now().sum_by([]).legend_prefix("at most"))),
        timeseries("k6 check pass ratio")
            .description("Share of checks that passed, by check.")
            .remediation("An answer is wrong, not only late: k6's output has the check's name.")
            .share_of_good(1.0, 0.99)
            .query(seldom(external_metric("k6_checks_rate").now().max_by(["check"]))),
        timeseries("k6 failed requests")
            .description("Share of requests that k6 takes for failed, the worst kind of request of each scenario.")
            .remediation("More than the server's errors: connections are refused or cut.")
            .errors()
            .query(seldom(external_metric("k6_http_req_failed_rate").now().max_by(["scenario"]))),
        stacked_timeseries("k6 requests / s by status")
            .description("What k6 got.")
            .remediation("Status 0: no answer at all. 429, 503: the servers protect themselves.")
            .unit(unit::REQUESTS)
            .query(seldom(requests().rate().sum_by(["status"]))),
        timeseries("k6 iterations / s")
            .description("Runs of the scenarios.")
            .remediation("It falls while users stay: each run takes longer.")
            .unit(unit::PER_SECOND)
            .query(seldom(external_metric("k6_iterations_total").rate().sum_by(["scenario"]))),
        timeseries("k6 dropped iterations / s")
            .description("Runs that should have begun and had no virtual user.")
            .remediation("The test did not make the load that it says: its numbers are too good.")
            .unit(unit::PER_SECOND)
            .limit(0.01)
            .query(seldom(external_metric("k6_dropped_iterations_total").rate().sum_by(["scenario"]))),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn both() -> [Panel; 3] {
    [
        timeseries("Server p95 beside client p95")
            .description("What the gateway measures, and what k6 does.")
            .remediation("A gap that grows: requests wait before the gateway sees them, or k6 is at its limit.")
            .unit(unit::SECONDS)
            .traces(Traces::GATEWAY.slow())
            .query(http().quantile(0.95, []).legend_prefix("server"))
            .query(seldom(external_metric("k6_http_req_duration_p95").now().max_by([]).legend_prefix("k6"))),
        timeseries("Server rate beside client rate")
            .description("Requests that the gateway answered, and that k6 sent.")
            .remediation("Fewer answered than sent: connections are refused before a request is read.")
            .unit(unit::REQUESTS)
            .query(http().count().rate().sum_by([]).legend_prefix("server"))
            .query(seldom(requests().rate().sum_by([]).legend_prefix("k6"))),
        timeseries("Server errors beside client failures")
            .description("Share of 5xx by the gateway, and of failures by k6; k6 counts 4xx too.")
            .remediation("Only k6 has failures: see the status codes, then the connections that were cut.")
            .errors()
            .query(http_errors([]).legend_prefix("server"))
            .query(seldom(external_metric("k6_http_req_failed_rate").now().max_by([]).legend_prefix("k6"))),
    ]
}

fn servers() -> [Panel; 6] {
    let limiter = ["job", "limiter"];
    let busy = || metric("process_cpu_seconds_total").rate();
    [
        stacked_timeseries("Shed / s")
            .description("Requests refused, by reason: past the capacity they should grow with the load, and p95 should not.")
            .remediation("None at overload and p95 in seconds: the limits are too high.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .query(metric("palisade.requests.shed").rate().sum_by(["job", "reason"]).or_zero(&every_process())),
        timeseries("Concurrency used / limit")
            .description("How full each limit is.")
            .remediation("The one at 100 % is the bottleneck.")
            .share(0.7, 0.9)
            .query(
                metric("palisade.concurrency.in_use").now().sum_by(limiter) / metric("palisade.concurrency.limit").now().sum_by(limiter),
            ),
        timeseries("CPU cores used")
            .description("Processor time per second of each service.")
            .remediation("One at its limit: that service is the capacity of the whole.")
            .unit(unit::NUMBER)
            .query(busy().sum_by(["job"])),
        timeseries("CPU per request")
            .description("Processor time of all services for one HTTP request.")
            .remediation("Higher than in the last test: something got more expensive. It is the number that other machines can be compared by.")
            .unit(unit::SECONDS)
            .query((busy().sum_by([]) / http().count().rate().sum_by([])).legend_prefix("CPU")),
        timeseries("Resident memory")
            .description("Memory in use.")
            .remediation("It must level off: under constant load growth is a leak.")
            .unit(unit::BYTES)
            .query(metric("process_resident_memory_bytes").now().sum_by(["job", "instance"])),
        stat("Invariants broken")
            .description("What audits found broken. A load test must leave it at 0.")
            .remediation("`GET /invariants` on the admin ports names each.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("StockInvariantViolated")
            .query(metric("palisade.invariant.violations").now().sum_by(["check"]))
            .sized(8, 8),
    ]
}

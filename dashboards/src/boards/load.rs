//! A load test from both sides: what k6 sends and sees, beside what the servers say.

use super::{every_process, http, http_errors};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, areas, graph, number, unit},
    query::{Query, Series, foreign, metric},
};

const K6: &str = "only while k6 runs and writes to this Prometheus";

pub(super) fn dashboard() -> Dashboard {
    let about = "k6 beside the servers. k6 writes here by `K6_PROMETHEUS_RW_SERVER_URL` and `--out experimental-prometheus-rw`, with \
                 `K6_PROMETHEUS_RW_TREND_STATS=p(95)`.";
    Dashboard::new("load", "Palisade / 8 Load test", about).row("k6", k6()).row("Both sides", both()).row("Servers", servers())
}

/// Quiet whenever no test runs.
fn seldom(query: Query) -> Query {
    query.sparse(K6)
}

fn requests() -> Series {
    foreign("k6_http_reqs_total")
}

fn k6() -> [Panel; 8] {
    let late = foreign("k6_http_req_duration_p95").now().max_by(["scenario"]);
    [
        graph("k6 requests / s")
            .tells("Requests that k6 sends, by scenario.")
            .if_bad("Below what the scenario says: k6 has too few virtual users, or the servers are slow.")
            .unit(unit::REQUESTS)
            .query(seldom(requests().rate().sum_by(["scenario"]))),
        graph("k6 p95")
            .tells("How long requests take for k6, the slowest kind of request of each scenario.")
            .if_bad("See both sides below: what the server does not see is the network, or k6 itself.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(seldom(late)),
        graph("k6 VUs")
            .tells("Virtual users at work, and how many there may be.")
            .if_bad("At the maximum with iterations dropped: the test is limited by k6, not by the servers.")
            .unit(unit::COUNT)
            .query(seldom(foreign("k6_vus").now().sum_by([]).called("at work")))
            .query(seldom(foreign("k6_vus_max").now().sum_by([]).called("at most"))),
        graph("k6 check pass ratio")
            .tells("Share of checks that passed, by check.")
            .if_bad("An answer is wrong, not only late: k6's output has the check's name.")
            .share_of_good(1.0, 0.99)
            .query(seldom(foreign("k6_checks_rate").now().max_by(["check"]))),
        graph("k6 failed requests")
            .tells("Share of requests that k6 takes for failed, the worst kind of request of each scenario.")
            .if_bad("More than the server's errors: connections are refused or cut.")
            .errors()
            .query(seldom(foreign("k6_http_req_failed_rate").now().max_by(["scenario"]))),
        areas("k6 requests / s by status")
            .tells("What k6 got.")
            .if_bad("Status 0: no answer at all. 429, 503: the servers protect themselves.")
            .unit(unit::REQUESTS)
            .query(seldom(requests().rate().sum_by(["status"]))),
        graph("k6 iterations / s")
            .tells("Runs of the scenarios.")
            .if_bad("It falls while users stay: each run takes longer.")
            .unit(unit::PER_SECOND)
            .query(seldom(foreign("k6_iterations_total").rate().sum_by(["scenario"]))),
        graph("k6 dropped iterations / s")
            .tells("Runs that should have begun and had no virtual user.")
            .if_bad("The test did not make the load that it says: its numbers are too good.")
            .unit(unit::PER_SECOND)
            .limit(0.01)
            .query(seldom(foreign("k6_dropped_iterations_total").rate().sum_by(["scenario"]))),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn both() -> [Panel; 3] {
    [
        graph("Server p95 beside client p95")
            .tells("What the gateway measures, and what k6 does.")
            .if_bad("A gap that grows: requests wait before the gateway sees them, or k6 is at its limit.")
            .unit(unit::SECONDS)
            .traces(Traces::GATEWAY.slow())
            .query(http().quantile(0.95, []).called("server"))
            .query(seldom(foreign("k6_http_req_duration_p95").now().max_by([]).called("k6"))),
        graph("Server rate beside client rate")
            .tells("Requests that the gateway answered, and that k6 sent.")
            .if_bad("Fewer answered than sent: connections are refused before a request is read.")
            .unit(unit::REQUESTS)
            .query(http().count().rate().sum_by([]).called("server"))
            .query(seldom(requests().rate().sum_by([]).called("k6"))),
        graph("Server errors beside client failures")
            .tells("Share of 5xx by the gateway, and of failures by k6; k6 counts 4xx too.")
            .if_bad("Only k6 has failures: see the status codes, then the connections that were cut.")
            .errors()
            .query(http_errors([]).called("server"))
            .query(seldom(foreign("k6_http_req_failed_rate").now().max_by([]).called("k6"))),
    ]
}

fn servers() -> [Panel; 6] {
    let limiter = ["job", "limiter"];
    let busy = || metric("process_cpu_seconds_total").rate();
    [
        areas("Shed / s")
            .tells("Requests refused, by reason: past the capacity they should grow with the load, and p95 should not.")
            .if_bad("None at overload and p95 in seconds: the limits are too high.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .query(metric("palisade.requests.shed").rate().sum_by(["job", "reason"]).or_zero(&every_process())),
        graph("Concurrency used / limit")
            .tells("How full each limit is.")
            .if_bad("The one at 100 % is the bottleneck.")
            .share(0.7, 0.9)
            .query(
                metric("palisade.concurrency.in_use").now().sum_by(limiter) / metric("palisade.concurrency.limit").now().sum_by(limiter),
            ),
        graph("CPU cores used")
            .tells("Processor time per second of each service.")
            .if_bad("One at its limit: that service is the capacity of the whole.")
            .unit(unit::NUMBER)
            .query(busy().sum_by(["job"])),
        graph("CPU per request")
            .tells("Processor time of all services for one HTTP request.")
            .if_bad("Higher than in the last test: something got more expensive. It is the number that other machines can be compared by.")
            .unit(unit::SECONDS)
            .query((busy().sum_by([]) / http().count().rate().sum_by([])).called("CPU")),
        graph("Resident memory")
            .tells("Memory in use.")
            .if_bad("It must level off: under constant load growth is a leak.")
            .unit(unit::BYTES)
            .query(metric("process_resident_memory_bytes").now().sum_by(["job", "instance"])),
        number("Invariants broken")
            .tells("What audits found broken. A load test must leave it at 0.")
            .if_bad("`GET /invariants` on the admin ports names each.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("StockInvariantViolated")
            .query(metric("palisade.invariant.violations").now().sum_by(["check"]))
            .sized(8, 8),
    ]
}

//! Limits dashboard: load shedding, concurrency limits, connections, deadlines, fault injection.

mod connections;

use super::every_process;
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, stat, timeseries, unit},
    query::metric,
};

const LIMITER: [&str; 2] = ["job", "limiter"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Protection of each process against too much work: load shedding, limits, connections, deadlines, injected faults.";
    Dashboard::new("limits", "Palisade / 06 Limits and load shedding", about)
        .row("Load shedding", load_shedding())
        .row("Deadlines", deadlines())
        .row("Connections", connections::panels())
        .row("Faults", faults())
}

fn load_shedding() -> [Panel; 8] {
    let in_use = || metric("palisade.concurrency.in_use").now().sum_by(LIMITER);
    let limit = || metric("palisade.concurrency.limit").now().sum_by(LIMITER);
    [
        stacked_timeseries("Shed / s")
            .description("Requests rejected to protect the process (load shedding), by reason.")
            .remediation("`caller_share`, `rate_limit`, `address_limit`: one client. Others: the load exceeds a concurrency limit.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .query(metric("palisade.requests.shed").rate().sum_by(["job", "reason"]).or_zero(&every_process())),
        timeseries("Rate limits without key / s")
            .description("Requests in which a rate limit did not find its key, such as a caller or an address. They share one bucket.")
            .remediation("A layer that provides the key is missing or stands in the wrong position. The log has an error.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.rate_limit.missing_keys").rate().sum_by(["job", "key"])),
        timeseries("Limits")
            .description("Concurrency limits. `adaptive` follows handler latency (gradient), all others are fixed.")
            .remediation("A falling adaptive limit: handlers contend with each other, or their store is slow.")
            .unit(unit::COUNT)
            .query(limit()),
        timeseries("In use")
            .description("Permits in use by requests being processed; `request_body` by requests being received.")
            .remediation("A target at its limit hangs. Its bulkhead protects the other targets. `request_body`: slow clients.")
            .unit(unit::COUNT)
            .query(in_use()),
        timeseries("Slow clients")
            .description("Complete responses that clients have not read, and rejections held back on connections that ignore Retry-After.")
            .remediation("They hold memory but no permit. Constantly high: one address attacks, or a client library retries at once.")
            .unit(unit::COUNT)
            .query(metric("palisade.responses.unread").now().sum_by(["job", "protocol"]).legend_prefix("unread"))
            .query(metric("palisade.rejections.held_back").now().sum_by(["job"]).legend_prefix("held back")),
        timeseries("Used / limit")
            .description("Utilisation of each concurrency limit.")
            .remediation("Constantly at 90 %: add replicas, or find the slow dependency.")
            .share(0.7, 0.9)
            .runbook("LoadShedding")
            .query(in_use() / limit()),
        timeseries("Queue depth")
            .description("Requests waiting in the queue of the adaptive limit.")
            .remediation("A standing queue only adds delay: adjust the limit or the load.")
            .unit(unit::COUNT)
            .query(metric("palisade.queue.depth").now().sum_by(LIMITER)),
        timeseries("Queue wait p95 / p99")
            .description("Queue wait of requests that had to queue.")
            .remediation("The wait is part of the request duration.")
            .unit(unit::SECONDS)
            .limits(0.05, 0.25)
            .query(metric("palisade.queue.wait").quantile(0.95, LIMITER).legend_prefix("p95"))
            .query(metric("palisade.queue.wait").quantile(0.99, LIMITER).legend_prefix("p99")),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn deadlines() -> [Panel; 3] {
    let remaining_deadline = |quantile| metric("palisade.deadline.remaining").quantile(quantile, ["job"]);
    [
        timeseries("Deadline left on arrival")
            .description(
                "Remaining time of requests with a deadline when they arrive: median and \
                    5th percentile. A service without such requests has no line.",
            )
            .remediation("Near 0: requests cannot finish in time. Find the slow hop before this one.")
            .unit(unit::SECONDS)
            .traces(Traces::SERVICE.slow())
            .query(remaining_deadline(0.5).above(0.0).legend_prefix("p50"))
            .query(remaining_deadline(0.05).above(0.0).legend_prefix("p5")),
        timeseries("Timeouts / s")
            .description("Exceeded deadlines and attempt timeouts by target. `server` is the server's own request timeout.")
            .remediation("`attempt`: the target hangs occasionally. `deadline`: the target is slower than the caller's deadline.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.request.timeouts").rate().sum_by(["job", "target", "kind"])),
        timeseries("grpc-timeout parse errors / s")
            .description("Requests with a malformed `grpc-timeout` header. The server's default timeout applies.")
            .remediation("A client builds the header incorrectly.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.grpc_timeout.parse_errors").rate().sum_by(["job"])),
    ]
}

fn faults() -> [Panel; 3] {
    [
        stat("Fault rules, manual breakers")
            .description("Active fault injection rules, and breakers in a manual mode. Normally 0.")
            .remediation("`GET /faults` on the admin port lists the rules, `DELETE /faults` removes them. `PUT /breakers/{target}` resets.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("BreakerManual")
            .query(metric("palisade.faults.active").now().sum_by(["job"]).legend_prefix("rules"))
            .query(metric("palisade.breaker.manual").now().sum_by(["job"]).legend_prefix("manual")),
        timeseries("Faults injected / s")
            .description("Requests with an injected fault, by kind.")
            .remediation("Expected during a fault injection test. Otherwise `DELETE /faults`.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.faults.injected").rate().sum_by(["job", "kind"])),
        timeseries("Panics / min")
            .description("Panics of handlers, each of which causes a 500 response, and of background jobs, which are restarted.")
            .remediation("A bug: the log has the message and location.")
            .unit(unit::PER_MINUTE)
            .limit(0.1)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.panics").rate().sum_by(["job"]).per_minute().or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(8, 8))
}

//! Rate limits, load shedding and concurrency limits.

use super::every_process;
use crate::{
    panel::{Panel, stacked_timeseries, timeseries, unit},
    query::metric,
};

const LIMITER: [&str; 2] = ["job", "limiter"];

pub(super) fn panels() -> [Panel; 8] {
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
}

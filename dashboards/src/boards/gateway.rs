//! The HTTP gateway: rate, errors and durations by route, and what keeps it from being overrun.

use super::{every_process, http, http_errors};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, timeseries, heatmap, unit},
    query::{Series, metric},
};

const ROUTE: [&str; 2] = ["http.request.method", "http.route"];

pub(super) fn dashboard() -> Dashboard {
    let about = "What clients see, by route; how near the gateway is to its limits; who is refused.";
    Dashboard::new("gateway", "Palisade / 2 HTTP gateway", about)
        .row("By route", by_route())
        .row("Durations", durations())
        .row("Saturation", saturation())
        .row("Cache", cache())
        .row("Streams", streams())
        .row("Refused at the door", refused())
}

fn by_route() -> [Panel; 3] {
    [
        timeseries("Rate by route")
            .description("Requests answered by route; what matches no route has none.")
            .remediation("A route that jumps is a client that loops; without a route, a scanner.")
            .unit(unit::REQUESTS)
            .traces(Traces::ROUTE)
            .query(http().count().rate().sum_by(ROUTE)),
        stacked_timeseries("Rate by status")
            .description("Requests answered by HTTP status.")
            .remediation("401 and 403: tokens or scopes. 429: a caller above its rate. 503: shed, or an open breaker. 504: a deadline.")
            .unit(unit::REQUESTS)
            .traces(Traces::GATEWAY)
            .query(http().count().rate().sum_by(["http.response.status_code"])),
        timeseries("Error ratio by route")
            .description("Share of each route's requests that were answered with 5xx; a flat 0 is none.")
            .remediation("One route: its upstream. All routes: the gateway or both upstreams.")
            .errors()
            .traces(Traces::ROUTE.failed())
            .runbook("ErrorBudgetBurnFast")
            .query(http_errors(ROUTE)),
    ]
}

fn durations() -> [Panel; 4] {
    let total = || http().count().rate().sum_by([]);
    let within = |le| http().bucket().matches("le", le).rate().sum_by([]);
    let apdex = 0.5 * ((within("0.25") + within("1|1.0")) / total());
    [
        timeseries("p95 by route")
            .description("How long all but the slowest twentieth of a route's requests take.")
            .remediation("Follow a slow trace: the widest span is the reason.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::ROUTE.slow())
            .query(http().quantile(0.95, ROUTE)),
        timeseries("p99 by route")
            .description("How long all but the slowest hundredth take: the objective is 250 ms.")
            .remediation("If p95 is well, it is retries, cold connections or a lock; if not, it is the upstream.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::ROUTE.slow())
            .runbook("ErrorBudgetBurnSlow")
            .query(http().quantile(0.99, ROUTE)),
        heatmap("Latency heatmap")
            .description("How many requests took how long. Two bands are two kinds of requests; a band that rises is saturation.")
            .remediation("A band at 1 s or more is a timeout or a retry of somebody behind.")
            .unit(unit::SECONDS)
            .traces(Traces::GATEWAY.slow())
            .query(http().bucket().rate().sum_by(["le"])),
        timeseries("Apdex (T = 0.25 s)")
            .description("1 if all requests take at most 250 ms; those up to 1 s count half.")
            .remediation("Below 0.95 users notice: see which route has a high p95.")
            .share_of_good(0.95, 0.85)
            .traces(Traces::GATEWAY.slow())
            .query(apdex),
    ]
    .map(|panel| panel.sized(6, 8))
}

/// A metric of all processes, the gateway's only.
fn own(name: &str) -> Series {
    metric(name).is("job", "gateway")
}

fn saturation() -> [Panel; 4] {
    let limiter = ["job", "limiter"];
    let in_use = own("palisade.concurrency.in_use").now().sum_by(limiter);
    [
        timeseries("In-flight requests")
            .description("Requests that are being answered, by HTTP method.")
            .remediation("If it rises and the rate does not, requests wait for somebody behind.")
            .unit(unit::COUNT)
            .traces(Traces::GATEWAY.slow())
            .query(metric("http.server.active_requests").now().sum_by(["http.request.method"])),
        timeseries("Concurrency used / limit")
            .description("How full each limit is: `hard` and `adaptive` for requests, a target's name for calls to it.")
            .remediation("A full target: it is slow, and its bulkhead holds. A full `adaptive`: requests queue, then are shed.")
            .share(0.7, 0.9)
            .runbook("LoadShedding")
            .query(in_use / own("palisade.concurrency.limit").now().sum_by(limiter)),
        timeseries("Queue wait p95")
            .description("How long those waited who could not run at once.")
            .remediation("Load is above what the limit lets run: more replicas, or find what got slow.")
            .unit(unit::SECONDS)
            .limits(0.05, 0.25)
            .query(own("palisade.queue.wait").quantile(0.95, limiter)),
        timeseries("Waiting")
            .description("Requests that wait for a place.")
            .remediation("A queue that never empties adds its wait to every request.")
            .unit(unit::COUNT)
            .query(own("palisade.queue.waiting").now().sum_by(limiter)),
    ]
    .map(|panel| panel.sized(6, 8))
}

/// What to do when the cache is as full as it may be.
const FULL: &str = "At the limit of `cache.max_bytes` with a low hit ratio: give it more.";

fn cache() -> [Panel; 7] {
    let lookups = || own("palisade.cache.lookups");
    let all = lookups().rate().sum_by(["job"]);
    let kept = |name| own(name).now().sum_by(["instance"]);
    [
        timeseries("Cache hit ratio")
            .description("Share of the reads of products for which nobody was asked, or only Redis. Nothing is drawn without a cache.")
            .remediation("Low with many invalidations: stock changes faster than `cache.ttl_ms`. Low without: more is read than `cache.max_bytes` holds.")
            .share_of_good(0.5, 0.1)
            .query(lookups().matches("result", "hit|shared").rate().sum_by(["job"]) / all),
        stacked_timeseries("Stale answers / s")
            .description("Reads that were answered with what is no longer fresh, because products did not answer or not in time.")
            .remediation("Products is down or slow, and readers are told so by `Cache-Status`: see its breaker.")
            .unit(unit::REQUESTS)
            .runbook("BreakerOpen")
            .query(lookups().is("result", "stale").rate().sum_by(["job"])),
        stacked_timeseries("Invalidations / s")
            .description("Times that something was outdated: by an event, by a write through the gateway, or because events may have been missed.")
            .remediation("`missed`: the connection to NATS breaks. No `event` although products changes: no `events.nats_url`, or a lagging outbox.")
            .unit(unit::PER_SECOND)
            .runbook("OutboxLag")
            .query(own("palisade.cache.invalidations").rate().sum_by(["cause"])),
        stacked_timeseries("Loads / s")
            .description("Calls to products that fill the cache: one for all who ask for the same. `outdated` answers are given but not kept.")
            .remediation("`failed`: products does not answer, or what is asked for is not there. Mostly `outdated`: what is read most changes all the time.")
            .unit(unit::REQUESTS)
            .query(own("palisade.cache.loads").rate().sum_by(["outcome"])),
        stacked_timeseries("Second level / s")
            .description("Operations of the Redis that replicas share, by what came of them; a flat 0 is no Redis.")
            .remediation("`failed` and `skipped`: Redis is away or slower than `cache.redis_timeout_ms`. Reads are slower, and as right as before.")
            .unit(unit::PER_SECOND)
            .query(own("palisade.cache.second_level").rate().sum_by(["operation", "outcome"])),
        timeseries("Answers kept").description("How many answers each gateway keeps.").remediation(FULL).unit(unit::COUNT).sized(4, 8).query(kept("palisade.cache.entries")),
        timeseries("Bytes kept").description("What they take, at most `cache.max_bytes`.").remediation(FULL).unit(unit::BYTES).sized(4, 8).query(kept("palisade.cache.bytes")),
    ]
}

fn streams() -> [Panel; 2] {
    [
        timeseries("Streams open")
            .description("Orders that are being watched: `http` at the gateway, `grpc` at orders behind it.")
            .remediation("At `server.max_streams` new ones get 503. More `grpc` than `http` for long: somebody calls orders directly.")
            .unit(unit::COUNT)
            .query(metric("palisade.streams.open").now().sum_by(["job", "protocol"])),
        stacked_timeseries("Streams ended / s")
            .description("Streams that ended, by what brought it about: the order (`done`), the reader, the connection, their age.")
            .remediation("Many `reader`: clients give up, or something on the way cuts what is silent.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.streams.ended").rate().sum_by(["job", "protocol", "reason"]).or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(12, 8))
}

fn refused() -> [Panel; 4] {
    [
        stacked_timeseries("Shed + rate-limited / s")
            .description("Requests refused by reason: over a caller's rate, or to protect the process.")
            .remediation("`rate_limit`, `address_limit`: one caller. Others: too much load for one process.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .query(own("palisade.requests.shed").rate().sum_by(["job", "reason"]).or_zero(&every_process().is("job", "gateway"))),
        timeseries("Revoked tokens / s")
            .description("Requests with a token that was revoked.")
            .remediation("Somebody uses a stolen or an old token: the log has the subject.")
            .unit(unit::REQUESTS)
            .query(own("palisade.auth.tokens.revoked").rate().sum_by(["job"]).or_zero(&every_process().is("job", "gateway"))),
        timeseries("Key sets read / s")
            .description("Reads of key sets by outcome. While they fail the keys that are known go on to serve.")
            .remediation("`failed`: the issuer's key set cannot be read; new keys of it are refused.")
            .unit(unit::PER_SECOND)
            .query(own("palisade.auth.key_set.reads").rate().sum_by(["job", "outcome"]).or_zero(&every_process().is("job", "gateway"))),
        timeseries("Connections cut / s")
            .description("Connections and streams that a limit put an end to, by reason; `age` is the normal end of a long one.")
            .remediation("`address`: too many of one client. `no_request`, `write_stall`, `stream_stall`: slow or hostile clients.")
            .unit(unit::PER_SECOND)
            .query(own("palisade.connections.cut").rate().sum_by(["job", "reason"]).or_zero(&every_process().is("job", "gateway"))),
    ]
    .map(|panel| panel.sized(6, 8))
}

//! HTTP gateway dashboard: rate, errors and latency by route, saturation, cache, streams and
//! rejected requests.

use super::{every_process, http_errors, http_requests};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, heatmap, stacked_timeseries, timeseries, unit},
    query::{Series, metric},
};

const ROUTE: [&str; 2] = ["http.request.method", "http.route"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Rate, errors and latency by route, saturation of the gateway's limits, response cache, rejected requests.";
    Dashboard::new("gateway", "Palisade / 03 HTTP gateway", about)
        .row("By route", by_route())
        .row("Durations", durations())
        .row("Saturation", saturation())
        .row("Rejected requests", rejected_requests())
        .row("By caller", by_caller())
        .collapsed_row("Streams", streams())
        .optional_row("Response cache (if `cache.ttl_ms` is set)", cache())
}

fn by_route() -> [Panel; 3] {
    [
        timeseries("Rate by route")
            .description("Served requests by route. Requests that match no route have an empty route.")
            .remediation("A sudden rise on one route: a client in a loop. Without a route: a scanner.")
            .unit(unit::REQUESTS)
            .traces(Traces::ROUTE)
            .query(http_requests().count().rate().sum_by(ROUTE)),
        stacked_timeseries("Rate by status")
            .description("Served requests by HTTP status.")
            .remediation("401, 403: tokens or scopes. 429: rate limit. 503: load shedding or an open breaker. 504: deadline exceeded.")
            .unit(unit::REQUESTS)
            .traces(Traces::GATEWAY)
            .query(http_requests().count().rate().sum_by(["http.response.status_code"])),
        timeseries("Error ratio by route")
            .description("Share of requests with a 5xx response, by route. A flat 0 means no errors.")
            .remediation("One route: check its upstream. All routes: check the gateway or both upstreams.")
            .errors()
            .traces(Traces::ROUTE.failed())
            .runbook("ErrorBudgetBurnFast")
            .query(http_errors(ROUTE)),
    ]
}

fn by_caller() -> [Panel; 3] {
    const CALLER: [&str; 1] = ["caller"];
    let requests = || metric("palisade.caller.request.duration");
    let all = || requests().count().rate().sum_by(CALLER);
    [
        timeseries("Rate by caller")
            .description("Requests with a verified token, by the issuer of the token under its name in `auth.issuers`.")
            .remediation("A sudden rise of one caller: its rate limit protects the others.")
            .unit(unit::REQUESTS)
            .query(all()),
        timeseries("Error ratio by caller")
            .description("Share of a caller's requests with a 5xx response.")
            .remediation("One caller: it uses a route or a size of request that fails. All callers: see the routes above.")
            .errors()
            .traces(Traces::GATEWAY.failed())
            .query(requests().count().is("outcome", "server_error").rate().sum_by(CALLER).share_of(&all())),
        timeseries("p95 by caller")
            .description("95th percentile of a caller's request durations until the response head.")
            .remediation("One caller: it requests more per call. All callers: see the routes above.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::GATEWAY.slow())
            .query(requests().quantile(0.95, CALLER)),
    ]
}

fn durations() -> [Panel; 4] {
    let total = || http_requests().count().rate().sum_by([]);
    let bucket_rate = |le| http_requests().bucket().matches("le", le).rate().sum_by([]);
    let apdex = 0.5 * ((bucket_rate("0.25") + bucket_rate("1|1.0")) / total());
    [
        timeseries("p95 by route")
            .description("95th percentile of request durations by route.")
            .remediation("Open a slow trace: the longest span is the cause.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::ROUTE.slow())
            .query(http_requests().quantile(0.95, ROUTE)),
        timeseries("p99 by route")
            .description("99th percentile of request durations by route. The objective is 250 ms.")
            .remediation("If p95 is normal: retries, cold connections or a lock. If p95 is high too: the upstream.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::ROUTE.slow())
            .runbook("ErrorBudgetBurnSlow")
            .query(http_requests().quantile(0.99, ROUTE)),
        heatmap("Latency heatmap")
            .description("Distribution of request durations. Two bands: two classes of requests. A rising band: saturation.")
            .remediation("A band at 1 s or above: timeouts or retries of an upstream.")
            .unit(unit::SECONDS)
            .traces(Traces::GATEWAY.slow())
            .query(http_requests().bucket().rate().sum_by(["le"])),
        timeseries("Apdex (T = 0.25 s)")
            .description("Share of requests that took at most 250 ms. Requests up to 1 s count half.")
            .remediation("Below 0.95 users notice. Find the route with a high p95.")
            .share_of_good(0.95, 0.85)
            .traces(Traces::GATEWAY.slow())
            .query(apdex),
    ]
    .map(|panel| panel.sized(6, 8))
}

/// Selects the gateway's series of a metric that every process exports.
fn gateway_metric(name: &str) -> Series {
    metric(name).is("job", "gateway")
}

fn saturation() -> [Panel; 4] {
    let limiter = ["job", "limiter"];
    let in_use = gateway_metric("palisade.concurrency.in_use").now().sum_by(limiter);
    [
        timeseries("In-flight requests")
            .description("Requests in flight by HTTP method.")
            .remediation("Rises while the request rate does not: an upstream is slow.")
            .unit(unit::COUNT)
            .traces(Traces::GATEWAY.slow())
            .query(metric("http.server.active_requests").now().sum_by(["http.request.method"])),
        timeseries("Concurrency used / limit")
            .description("Utilisation of each concurrency limit: `hard` and `adaptive` for requests, the target's name for its bulkhead.")
            .remediation("Target at 100 %: it is slow and its bulkhead is full. `adaptive` at 100 %: requests queue, then are shed.")
            .share(0.7, 0.9)
            .runbook("LoadShedding")
            .query(in_use / gateway_metric("palisade.concurrency.limit").now().sum_by(limiter)),
        timeseries("Queue wait p95")
            .description("95th percentile of the queue wait, of requests that had to queue.")
            .remediation("Load exceeds the concurrency limit: add replicas, or find the slow dependency.")
            .unit(unit::SECONDS)
            .limits(0.05, 0.25)
            .query(gateway_metric("palisade.queue.wait").quantile(0.95, limiter)),
        timeseries("Queue depth")
            .description("Requests waiting in the queue of a concurrency limit.")
            .remediation("A standing queue adds its wait to every request.")
            .unit(unit::COUNT)
            .query(gateway_metric("palisade.queue.depth").now().sum_by(limiter)),
    ]
    .map(|panel| panel.sized(6, 8))
}

/// Remediation for a cache that is at its size limit.
const FULL_REMEDIATION: &str = "At the limit of `cache.max_bytes` with a low hit ratio: raise the limit.";

fn cache() -> [Panel; 7] {
    let lookups = || gateway_metric("palisade.cache.lookups");
    let all = lookups().rate().sum_by(["job"]);
    let by_instance = |name| gateway_metric(name).now().sum_by(["instance"]);
    [
        timeseries("Cache hit ratio")
            .description("Share of product reads served from the local cache or from Redis. No data if caching is disabled.")
            .remediation("Low with many invalidations: stock changes faster than `cache.ttl_ms`. Low without: raise `cache.max_bytes`.")
            .share_of_good(0.5, 0.1)
            .query(lookups().matches("result", "hit|shared").rate().sum_by(["job"]) / all),
        stacked_timeseries("Stale responses / s")
            .description("Reads served with an expired entry (stale-if-error) because products failed or exceeded the soft timeout.")
            .remediation("Products is down or slow: check its breaker. Clients see the staleness in the `Cache-Status` header.")
            .unit(unit::REQUESTS)
            .runbook("BreakerOpen")
            .query(lookups().is("result", "stale").rate().sum_by(["job"])),
        stacked_timeseries("Invalidations / s")
            .description("Cache invalidations by cause: an event, a write through the gateway, or a gap in the event stream.")
            .remediation("`missed`: the NATS connection drops. No `event` although products change: no `events.nats_url`, or outbox lag.")
            .unit(unit::PER_SECOND)
            .runbook("OutboxLag")
            .query(gateway_metric("palisade.cache.invalidations").rate().sum_by(["cause"])),
        stacked_timeseries("Loads / s")
            .description("Cache fills (calls to products), one per key by single flight. `outdated` responses are served but not stored.")
            .remediation("`failed`: products fails, or the product does not exist. Mostly `outdated`: popular products change constantly.")
            .unit(unit::REQUESTS)
            .query(gateway_metric("palisade.cache.loads").rate().sum_by(["outcome"])),
        stacked_timeseries("Redis cache operations / s")
            .description("Operations on the shared Redis cache by outcome. A flat 0 means Redis is not configured.")
            .remediation("`failed`, `skipped`: Redis is down or slower than `cache.redis_timeout_ms`. Reads are slower but still correct.")
            .unit(unit::PER_SECOND)
            .query(gateway_metric("palisade.cache.redis.operations").rate().sum_by(["operation", "outcome"])),
        timeseries("Cache entries")
            .description("Cached responses per gateway.")
            .remediation(FULL_REMEDIATION)
            .unit(unit::COUNT)
            .sized(4, 8)
            .query(by_instance("palisade.cache.entries")),
        timeseries("Cache bytes")
            .description("Size of the cached responses, at most `cache.max_bytes`.")
            .remediation(FULL_REMEDIATION)
            .unit(unit::BYTES)
            .sized(4, 8)
            .query(by_instance("palisade.cache.bytes")),
    ]
}

fn streams() -> [Panel; 2] {
    [
        timeseries("Open streams")
            .description("Order watch streams: `http` (SSE) at the gateway, `grpc` at orders.")
            .remediation("At `server.max_streams` new streams get 503. More `grpc` than `http` for long: a client bypasses the gateway.")
            .unit(unit::COUNT)
            .query(metric("palisade.streams.open").now().sum_by(["job", "protocol"])),
        stacked_timeseries("Streams ended / s")
            .description("Ended streams by reason: order finished (`done`), client closed, connection closed, maximum age, token expired or revoked.")
            .remediation("Many `reader`: clients disconnect, or a proxy closes idle connections.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.streams.ended").rate().sum_by(["job", "protocol", "reason"]).or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(12, 8))
}

fn rejected_requests() -> [Panel; 4] {
    [
        stacked_timeseries("Shed + rate-limited / s")
            .description("Rejected requests by reason: rate limits and load shedding.")
            .remediation("`rate_limit`, `address_limit`: one client sends too much. Others: the process is overloaded.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .query(
                gateway_metric("palisade.requests.shed").rate().sum_by(["job", "reason"]).or_zero(&every_process().is("job", "gateway")),
            ),
        timeseries("Rejected tokens / s")
            .description("Requests rejected by authentication, by reason.")
            .remediation("`unknown_key`, `keys_unavailable`, `unknown_issuer` for all users: the issuer or `auth.issuers` changed.")
            .unit(unit::REQUESTS)
            .runbook("AuthLockout")
            .query(gateway_metric("palisade.auth.rejections").rate().sum_by(["job", "reason"])),
        timeseries("JWKS refreshes / s")
            .description("JWKS refreshes by outcome. During failures the known keys stay in use.")
            .remediation("`failed`: the issuer's JWKS cannot be read. Tokens signed with new keys are rejected.")
            .unit(unit::PER_SECOND)
            .query(
                gateway_metric("palisade.jwks.refreshes").rate().sum_by(["job", "outcome"]).or_zero(&every_process().is("job", "gateway")),
            ),
        timeseries("Connections closed / s")
            .description("Connections and streams closed by a limit, by reason. `age` is the normal end of a long-lived connection.")
            .remediation(
                "`address`, `address_evicted`: too many connections from one IP. `evicted`, `busy_evicted`: the port was full. `no_request`, `slow_…`, \
                     `…_stall`, `waiting_bytes`: slow or hostile clients.",
            )
            .unit(unit::PER_SECOND)
            .query(
                gateway_metric("palisade.connections.closed")
                    .rate()
                    .sum_by(["job", "reason"])
                    .or_zero(&every_process().is("job", "gateway")),
            ),
    ]
    .map(|panel| panel.sized(6, 8))
}

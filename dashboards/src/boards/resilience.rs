//! Resilience dashboard: circuit breakers, load balancing, retries, deadlines, concurrency limits,
//! fault injection.

mod connections;
mod limits;

use super::{BREAKER_LABELS, every_process, overview::BREAKER_STATES};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, stat, state_timeline, timeseries, unit},
    query::metric,
};

const TARGET: [&str; 2] = ["job", "target"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Decisions of the resilience layers: breakers, load balancing, retries, deadlines, limits, fault injection.";
    Dashboard::new("resilience", "Palisade / 4 Resilience", about)
        .row("Breakers", breakers())
        .row("Endpoints", endpoints())
        .row("Retries", retries())
        .row("Deadlines", deadlines())
        .row("Limits and load shedding", limits::panels())
        .row("Connections", connections::panels())
        .row("Credentials, fault injection", credentials())
}

fn breakers() -> [Panel; 7] {
    let reasons = ["job", "target", "scope", "endpoint", "to", "reason"];
    [
        state_timeline("Breaker state")
            .description(
                "Target and endpoint breakers: green closed, red open, yellow half-open. Forced open is \
                    red, disabled is green.",
            )
            .remediation(
                "The job is the caller, the target fails. `PUT /breakers/{target}` on the caller's admin port overrides a breaker.",
            )
            .unit(unit::COUNT)
            .values(BREAKER_STATES)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.state").now().max_by(BREAKER_LABELS)),
        timeseries("State transitions / min by reason")
            .description("State changes by new state and reason.")
            .remediation(
                "`failure_rate`, `consecutive`: errors. `slow_rate`: latency. Repeated `probe_failed`: the target \
                     does not recover. `manual`: an operator.",
            )
            .unit(unit::PER_MINUTE)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.transitions").rate().sum_by(reasons).per_minute())
            .sized(12, 8),
        timeseries("Rejected by open breaker / s")
            .description("Calls rejected immediately because the breaker is open.")
            .remediation("Users get 503, unless another endpoint serves the call.")
            .unit(unit::REQUESTS)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.rejected").rate().sum_by(["job", "target", "scope"]))
            .sized(12, 8),
        timeseries("Failure ratio in the window")
            .description("Failure ratio in the breaker's sliding window. No data below the minimum number of calls.")
            .remediation("The breaker opens at the threshold (50 % by default): check the target's errors first.")
            .share(0.1, 0.5)
            .traces(Traces::SERVICE.failed())
            .query(metric("palisade.breaker.failure_ratio").now().max_by(BREAKER_LABELS))
            .sized(6, 8),
        timeseries("Slow ratio in the window")
            .description("Slow-call ratio in the breaker's sliding window. No data below the minimum number of calls.")
            .remediation("Slow calls open the breaker too: check the target's p99.")
            .share(0.3, 0.8)
            .traces(Traces::SERVICE.slow())
            .query(metric("palisade.breaker.slow_ratio").now().max_by(BREAKER_LABELS))
            .sized(6, 8),
        timeseries("Calls in the window")
            .description("Number of calls in the breaker's sliding window.")
            .remediation("Below the minimum number of calls the breaker stays closed, whatever the ratios.")
            .unit(unit::COUNT)
            .query(metric("palisade.breaker.window_calls").now().max_by(BREAKER_LABELS))
            .sized(6, 8),
        stacked_timeseries("Calls / s by breaker outcome")
            .description("Calls by breaker classification: success, failure, slow, or not counted (neutral, cancelled, stale).")
            .remediation("Many `cancelled`: callers time out before the target responds.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.breaker.calls").rate().sum_by(["job", "target", "outcome"]))
            .sized(6, 8),
    ]
}

fn endpoints() -> [Panel; 6] {
    const REGISTRY: &str = "present only if a service registry is configured";
    [
        timeseries("Known endpoints")
            .description("Endpoints of each target, from the static list or from service discovery.")
            .remediation(
                "0: discovery has returned no endpoint since the start. Fewer than replicas: some are not registered or not ready.",
            )
            .unit(unit::COUNT)
            .query(metric("palisade.lb.endpoints").now().max_by(["job", "instance", "target"])),
        timeseries("Discovery resolutions / min")
            .description("DNS and etcd resolutions by outcome: ok, empty, failed. `invalid` counts entries that were ignored.")
            .remediation(
                "`empty`, `failed`: the last known endpoints stay in use. `invalid`: the registry has entries that are not addresses.",
            )
            .unit(unit::PER_MINUTE)
            .query(
                metric("palisade.discovery.resolutions").rate().sum_by(["job", "target", "outcome"]).per_minute().may_be_absent(REGISTRY),
            )
            .query(
                metric("palisade.discovery.invalid_entries")
                    .rate()
                    .sum_by(TARGET)
                    .per_minute()
                    .legend_prefix("invalid")
                    .may_be_absent(REGISTRY),
            ),
        timeseries("Last successful resolution age")
            .description(
                "Time since the registry last confirmed the endpoints of a target: at each DNS poll, continuously with an etcd watch.",
            )
            .remediation("Above a minute: the registry is unavailable. Breakers avoid dead replicas, but new replicas are not discovered.")
            .unit(unit::SECONDS)
            .limits(60.0, 120.0)
            .runbook("DiscoveryStale")
            .query(metric("palisade.discovery.last_success_age").now().max_by(["job", "instance", "target"]).may_be_absent(REGISTRY)),
        timeseries("Registered")
            .description("1 while the instance is registered; registrations and lost registrations per minute.")
            .remediation("0: clients cannot discover this replica. Repeated `lost`: etcd is down, or too slow for the lease TTL.")
            .unit(unit::NUMBER)
            .query(metric("palisade.registration.up").now().max_by(["job", "instance", "service"]).may_be_absent(REGISTRY))
            .query(
                metric("palisade.registration.changes").rate().sum_by(["job", "service", "outcome"]).per_minute().may_be_absent(REGISTRY),
            ),
        timeseries("Outlier ejections / min")
            .description("Endpoints ejected by outlier detection. Not enforced: the maximum number of endpoints was ejected already.")
            .remediation("Repeated ejections of one endpoint: that replica is faulty. `enforced=false`: most replicas are.")
            .unit(unit::PER_MINUTE)
            .query(metric("palisade.outlier.ejections").rate().sum_by(["job", "target", "enforced"]).per_minute()),
        timeseries("Panic-mode picks / s")
            .description("Attempts sent to an ejected endpoint because all endpoints are ejected.")
            .remediation("No healthy endpoint: an outage of the target, not a faulty replica.")
            .unit(unit::REQUESTS)
            .limit(0.1)
            .query(metric("palisade.lb.panic_mode_picks").rate().sum_by(TARGET)),
    ]
    .map(|panel| panel.sized(8, 8))
}

fn retries() -> [Panel; 7] {
    let by = ["job", "grpc.target"];
    let started = |kind| metric("grpc.client.attempt.started").is("grpc.attempt.type", kind).rate().sum_by(by);
    let retried = || metric("grpc.client.call.retries");
    let retries_per_call = retried().sum().rate().sum_by(by) / retried().count().rate().sum_by(by);
    [
        timeseries("Retries / s")
            .description("Attempts after the first of a call.")
            .remediation("Retries mask failures of the target and add to its load.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .query(started("retry")),
        timeseries("Retry ratio")
            .description("Retries divided by first attempts.")
            .remediation("Above 20 % retries amplify the load. Check the target first, then the budget.")
            .share(0.1, 0.2)
            .runbook("RetryStorm")
            .query(started("retry").share_of(&started("original"))),
        timeseries("Retry-budget tokens")
            .description("Remaining tokens of the retry budget. A failure takes one, a success returns a fraction. No retries below half.")
            .remediation("Low: most calls to the target fail, and retries would only add load.")
            .unit(unit::NUMBER)
            .runbook("RetryStorm")
            .query(metric("palisade.retry.budget.tokens").now().sum_by(["job", "instance", "target"])),
        timeseries("Retry budget exhausted / s")
            .description("Retries denied by the retry budget.")
            .remediation("Works as intended: repair the target, do not raise the budget.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.retry.budget.exhausted").rate().sum_by(TARGET)),
        stacked_timeseries("Retries denied / s")
            .description("Failed attempts without a further retry, by reason.")
            .remediation(
                "`attempts`: attempts exhausted. `tokens`, `concurrency`: retry budget. `deadline`: no time left. `not_idempotent`, \
                     `committed`: not safe to repeat.",
            )
            .unit(unit::REQUESTS)
            .query(metric("palisade.retries.denied").rate().sum_by(["job", "target", "reason"])),
        timeseries("Retries per retried call")
            .description("Mean number of retries of the calls that were retried.")
            .remediation("Above 1: first retries fail too, so the backoff is too short or the failure is persistent.")
            .unit(unit::NUMBER)
            .query(retries_per_call.may_be_absent("no series before the first retry")),
        timeseries("Transparent retries / s")
            .description("Calls resent immediately because the server certainly did not process them.")
            .remediation("Occasional: connections reached their maximum age. Many: a proxy or server resets connections.")
            .unit(unit::REQUESTS)
            .query(
                metric("grpc.client.call.transparent_retries").count().rate().sum_by(by).or_zero(&metric("palisade.retry.budget.tokens")),
            ),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn deadlines() -> [Panel; 3] {
    let remaining_deadline = |quantile| metric("palisade.deadline.remaining").quantile(quantile, ["job"]);
    [
        timeseries("Deadline left on arrival")
            .description(
                "Remaining time of requests with a deadline when they arrive: median and \
                    5th percentile.",
            )
            .remediation("Near 0: requests cannot finish in time. Find the slow hop before this one.")
            .unit(unit::SECONDS)
            .traces(Traces::SERVICE.slow())
            .query(remaining_deadline(0.5).legend_prefix("p50"))
            .query(remaining_deadline(0.05).legend_prefix("p5")),
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

fn credentials() -> [Panel; 10] {
    const ISSUERS: &str = "present only if an issuer's JWKS is fetched by URL";
    let rate_by_label = |name: &str, label: &'static str| metric(name).rate().sum_by(["job", label]).or_zero(&every_process());
    [
        timeseries("JWKS refreshes / s")
            .description("JWKS refreshes by outcome. During failures the known keys stay in use.")
            .remediation("`failed`: tokens signed with new keys of that issuer are rejected. Its URL or file is wrong or unavailable.")
            .unit(unit::PER_SECOND)
            .query(rate_by_label("palisade.jwks.refreshes", "outcome")),
        stacked_timeseries("Outbound HTTP calls / s")
            .description("JWKS requests by server and status. Retries count as one call. No status means no response.")
            .remediation("5xx or no status: see JWKS refreshes. 3xx: redirects are not followed, correct the configured URL.")
            .unit(unit::REQUESTS)
            .query(
                metric("http.client.request.duration")
                    .count()
                    .rate()
                    .sum_by(["job", "server.address", "http.response.status_code", "error.type"])
                    .may_be_absent(ISSUERS),
            ),
        timeseries("Outbound HTTP attempt p99")
            .description("99th percentile of outbound HTTP attempts, first attempts and retries.")
            .remediation("Near 2 s: the issuer hangs. Requests with a token of an unknown key wait as long.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .query(
                metric("palisade.http.client.attempt.duration").quantile(0.99, ["job", "target", "attempt.type"]).may_be_absent(ISSUERS),
            ),
        timeseries("Revocation list reloads / s")
            .description("Reloads of the revocation list by outcome. During failures the old list stays in use.")
            .remediation("`failed`: tokens revoked since the last reload are still accepted.")
            .unit(unit::PER_SECOND)
            .query(rate_by_label("palisade.revocation_list.reloads", "outcome")),
        timeseries("Revoked tokens / s")
            .description("Requests rejected because their token is revoked.")
            .remediation("A client uses an outdated token, or a token was stolen.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.auth.tokens.revoked").rate().sum_by(["job"]).or_zero(&every_process())),
        timeseries("Certificate expiry")
            .description("Time until each certificate expires: `server` certificate, or client certificate for the named upstream.")
            .remediation("Below two weeks: renew the certificate. New files are reloaded without a restart.")
            .unit(unit::SECONDS)
            .query(
                (-1.0 * metric("palisade.tls.certificate.expiry").now().min_by(["job", "certificate"]).age())
                    .may_be_absent("absent on hops without TLS"),
            ),
        timeseries("Certificate reloads / s")
            .description("Reloads of changed certificates by outcome.")
            .remediation("`failed`: the old certificate stays in use until it expires. The log names the file.")
            .unit(unit::PER_SECOND)
            .query(rate_by_label("palisade.tls.reloads", "outcome")),
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
    .map(|panel| panel.sized(6, 8))
}

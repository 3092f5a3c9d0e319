//! Resilience dashboard: circuit breakers, load balancing, retries.

use super::{BREAKER_LABELS, overview::BREAKER_STATES};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, state_timeline, timeseries, unit},
    query::metric,
};

const TARGET: [&str; 2] = ["job", "target"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Decisions about a failing or slow target: breakers, load balancing, retries.";
    Dashboard::new("resilience", "Palisade / 05 Resilience", about)
        .row("Breakers", breakers())
        .row("Endpoints", endpoints())
        .row("Retries", retries())
        .optional_row("Service registry (if configured)", registry())
}

fn breakers() -> [Panel; 7] {
    const SCOPE: [&str; 3] = ["job", "target", "scope"];
    let calls = |outcomes: &str| metric("palisade.breaker.calls").matches("outcome", outcomes).rate().sum_by(SCOPE);
    let failure_ratio = calls("(slow_)?failure").share_of(&calls("(slow_)?(success|failure)"));
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
            .query(metric("palisade.breaker.state").now().max_by(BREAKER_LABELS))
            .sized(24, 6),
        timeseries("State transitions / min by reason")
            .description("State changes by new state and reason.")
            .remediation(
                "`failure_rate`, `consecutive`: errors. `slow_rate`: latency. Repeated `probe_failed`: the target \
                     does not recover. `manual`: an operator.",
            )
            .unit(unit::PER_MINUTE)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.transitions").rate().sum_by(["job", "target", "scope", "to", "reason"]).per_minute())
            .sized(8, 8),
        timeseries("Rejected by open breaker / s")
            .description("Calls rejected immediately because the breaker is open.")
            .remediation("Users get 503, unless another endpoint serves the call.")
            .unit(unit::REQUESTS)
            .runbook("BreakerOpen")
            .query(metric("palisade.breaker.rejected").rate().sum_by(["job", "target", "scope"]))
            .sized(8, 8),
        timeseries("Failure ratio")
            .description(
                "Failure ratio of the calls that reached the target, probes included, and in the breaker's sliding window. The \
                     window has no data below the minimum number of calls and starts empty after each state change.",
            )
            .remediation("The breaker opens at the threshold (50 % by default): check the target's errors first.")
            .share(0.1, 0.5)
            .traces(Traces::SERVICE.failed())
            .query(failure_ratio.legend_prefix("calls"))
            .query(metric("palisade.breaker.failure_ratio").now().max_by(BREAKER_LABELS).legend_prefix("window"))
            .sized(8, 8),
        timeseries("Slow ratio in the window")
            .description(
                "Slow-call ratio in the breaker's sliding window. No data below the minimum number of calls, as after each state change.",
            )
            .remediation("Slow calls open the breaker too: check the target's p99.")
            .share(0.3, 0.8)
            .traces(Traces::SERVICE.slow())
            .query(metric("palisade.breaker.slow_ratio").now().max_by(BREAKER_LABELS))
            .sized(8, 8),
        timeseries("Calls in the window")
            .description("Number of calls in the breaker's sliding window.")
            .remediation("Below the minimum number of calls the breaker stays closed, whatever the ratios.")
            .unit(unit::COUNT)
            .query(metric("palisade.breaker.window_calls").now().max_by(BREAKER_LABELS))
            .sized(8, 8),
        stacked_timeseries("Calls / s by breaker outcome")
            .description("Calls by breaker classification: success, failure, slow, or not counted (neutral, cancelled, stale).")
            .remediation("Many `cancelled`: callers time out before the target responds.")
            .unit(unit::REQUESTS)
            .query(metric("palisade.breaker.calls").rate().sum_by(["job", "target", "scope", "outcome"]))
            .sized(8, 8),
    ]
}

fn endpoints() -> [Panel; 3] {
    [
        timeseries("Known endpoints")
            .description("Endpoints of each target, from the static list or from service discovery.")
            .remediation(
                "0: discovery has returned no endpoint since the start. Fewer than replicas: some are not registered or not ready.",
            )
            .unit(unit::COUNT)
            .lowest_first()
            .query(metric("palisade.lb.endpoints").now().max_by(["job", "instance", "target"])),
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

fn registry() -> [Panel; 3] {
    const REGISTRY: &str = "present only if a service registry is configured";
    [
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
            .lowest_first()
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

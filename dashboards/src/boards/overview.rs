//! Overview dashboard, one screen: unhealthy hops and their likely causes.

use super::{
    BREAKER_LABELS, call_errors, every_process, grpc_client_calls, grpc_server_calls, hop_overhead, http_errors, http_requests,
    runtime::READY_STATES, store_operations,
};
use crate::{
    dashboard::Dashboard,
    panel::{Color, Panel, Traces, stat, state_timeline, table, timeseries, unit},
    query::{Series, external_metric, metric},
};

/// Value mappings of `palisade_breaker_state`.
pub(super) const BREAKER_STATES: &[(u8, &str, Color)] =
    &[(0, "closed", Color::Green), (1, "open", Color::Red), (2, "half-open", Color::Yellow)];

pub(super) fn dashboard() -> Dashboard {
    let about = "Health from the user's view, then each hop, then likely causes: breakers, rejections, stores, firing alerts.";
    Dashboard::new("overview", "Palisade / 01 Overview", about)
        .row("Current status", current_status())
        .row("Users (gateway)", users())
        .row("Hops", hops())
        .row("Likely causes", likely_causes())
}

/// Selects the firing alerts. The watchdog always fires.
fn firing_alerts() -> Series {
    external_metric("ALERTS").is("alertstate", "firing").is_not("alertname", "Watchdog")
}

fn current_status() -> [Panel; 8] {
    let open = metric("palisade.breaker.state").now().above(0.0).count_by([]).or_zero(&metric("palisade.breaker.state"));
    let oldest = metric("palisade.saga.oldest_in_flight").now().max_by([]);
    // All replicas read the same store, and one that cannot read it shows NaN.
    let sagas = metric("palisade.saga.in_flight").now().max_by(["state"]).sum_by([]);
    let broken = metric("palisade.invariant.violations").now().max_by([]);
    let faults = metric("palisade.faults.active").now().sum_by([]);
    let firing = firing_alerts().now().count_by([]).or_zero(&every_process());
    [
        stat("Targets up")
            .description("Share of the selected processes that Prometheus can scrape.")
            .remediation("A process is down or unreachable: check its log and `/livez`.")
            .share_of_good(1.0, 0.99)
            .runbook("TargetDown")
            .query(external_metric("up").now().sum_by([]) / external_metric("up").now().count_by([])),
        stat("Alerts firing")
            .description("Firing alerts, all jobs.")
            .remediation("The table below has their names and runbooks. Red annotations in the graphs show when they started.")
            .unit(unit::COUNT)
            .limit(1.0)
            .query(firing),
        stat("Breakers not closed")
            .description("Target and endpoint breakers that are open or half-open.")
            .remediation("The timeline below shows the target: it fails or is slow.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("BreakerOpen")
            .link_to_dashboard("resilience")
            .query(open),
        stat("Sagas in flight")
            .description("Unfinished sagas in the orders store.")
            .remediation("Should follow the load. Constant growth: products or the orders store does not respond.")
            .unit(unit::COUNT)
            .link_to_dashboard("orders")
            .query(sagas),
        stat("Oldest saga")
            .description("Age of the oldest order with an unfinished saga.")
            .remediation("`GET /saga/stuck` on the admin port of orders lists stuck sagas, `POST /saga/retry/{id}` retries one.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .link_to_dashboard("orders")
            .query(oldest),
        stat("Invariant violations")
            .description("Violations found by the last audits of orders and stock. Anything but 0 is a bug.")
            .remediation("`GET /invariants` on the admin ports lists them. Stop selling before you investigate.")
            .unit(unit::COUNT)
            .limit(1.0)
            .link_to_dashboard("orders")
            .query(broken),
        stat("Active fault rules")
            .description("Active fault injection rules of all processes. Normally 0.")
            .remediation("A fault injection test is running. `DELETE /faults` on the admin port stops it.")
            .unit(unit::COUNT)
            .limit(1.0)
            .link_to_dashboard("resilience")
            .query(faults),
        stat("Spans lost / s")
            .description("Spans that failed to export. Traces are incomplete without them.")
            .remediation("The collector is down or slow, or the span queue is too small.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .runbook("TelemetryLoss")
            .link_to_dashboard("runtime")
            .query(metric("otel.sdk.exporter.span.exported").is_not("error.type", "").rate().sum_by([]).or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(3, 3))
}

fn users() -> [Panel; 5] {
    let settled = metric("palisade.orders").matches("outcome", "confirmed|failed");
    let latency = |quantile| http_requests().quantile(quantile, []);
    [
        timeseries("Requests / s")
            .description("Served HTTP requests, all routes.")
            .remediation("Sudden drop: an outage in front of the gateway, or refused connections.")
            .unit(unit::REQUESTS)
            .traces(Traces::GATEWAY)
            .link_to_dashboard("gateway")
            .query(http_requests().count().rate().sum_by([]))
            .sized(5, 6),
        timeseries("Error ratio (5xx)")
            .description("Share of requests with a 5xx response. Yellow at 0.1 %, the objective.")
            .remediation("Find the hop with errors below. If there is none, the gateway itself fails.")
            .errors()
            .traces(Traces::GATEWAY.failed())
            .runbook("ErrorBudgetBurnFast")
            .link_to_dashboard("gateway")
            .query(http_errors([]))
            .sized(5, 6),
        timeseries("Latency p50 / p95 / p99")
            .description("Request duration up to the last byte. Objective: 99 % below 250 ms.")
            .remediation("Compare with the p99 of each service and store. If those are low, check queues and limits.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::GATEWAY.slow())
            .link_to_dashboard("gateway")
            .query(latency(0.5).legend_prefix("p50"))
            .query(latency(0.95).legend_prefix("p95"))
            .query(latency(0.99).legend_prefix("p99"))
            .sized(5, 6),
        timeseries("Orders / min")
            .description("The business: orders confirmed and failed per minute.")
            .remediation("Fewer confirmed: compare with the requests. More failed: the dashboard \"Orders and sagas\" has the reasons.")
            .unit(unit::PER_MINUTE)
            .runbook("OrdersRefused")
            .link_to_dashboard("orders")
            .query(settled.rate().sum_by(["outcome"]).per_minute())
            .sized(5, 6),
        stat("30-day error budget left")
            .description(
                "Remaining error budget of 30 days of each SLO, all jobs, at the request rate so far. Below 0 the objective is missed; \
                    -100 % is the end of the scale.",
            )
            .remediation("Prioritise reliability over features until it recovers.")
            .share_of_good(0.5, 0.0)
            .runbook("ErrorBudgetBurnSlow")
            .link_to_dashboard("slo")
            .query(external_metric("slo:error_budget:remaining_ratio").now().max_by(["slo"]))
            .sized(4, 6),
    ]
}

fn hops() -> [Panel; 4] {
    [
        timeseries("gRPC calls / s by service")
            .description("gRPC calls served by products and orders.")
            .remediation("Drops to 0 while requests arrive: the gateway rejects calls. Check its breakers.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .link_to_dashboard("grpc")
            .query(grpc_server_calls().count().rate().sum_by(["job"])),
        timeseries("gRPC error ratio by service")
            .description(
                "Share of calls with a server error, as served and as seen by the callers after their retries. `NOT_FOUND` and other \
                    client errors do not count.",
            )
            .remediation(
                "The innermost service with errors is the faulty one. Only \"calls to\" fails: that service is down or unreachable.",
            )
            .errors()
            .link_to_dashboard("grpc")
            .query(call_errors(grpc_server_calls, ["job"]).legend_prefix("served by"))
            .query(call_errors(grpc_client_calls, ["server.address"]).legend_prefix("calls to")),
        timeseries("gRPC p99 by service")
            .description("99th percentile of call durations, measured by the server.")
            .remediation("If the stores are slow too: the database. Otherwise check queues and CPU.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::SERVICE.slow())
            .link_to_dashboard("grpc")
            .query(grpc_server_calls().quantile(0.99, ["job"])),
        timeseries("Hop overhead (client p95 − server p95)")
            .description(
                "Call time outside the server: network, middleware, retries. Requires client and server \
                    among the selected jobs.",
            )
            .remediation("Retries, client-side queueing, or a slow network: see the resilience dashboard.")
            .unit(unit::SECONDS)
            .link_to_dashboard("resilience")
            .query(hop_overhead()),
    ]
    .map(|panel| panel.sized(6, 6))
}

fn likely_causes() -> [Panel; 5] {
    let rate_by_job = |name| metric(name).rate().sum_by(["job"]);
    [
        state_timeline("Breakers")
            .description("Circuit breaker states: green closed, red open, yellow half-open.")
            .remediation("The job is the caller, the target is the faulty service.")
            .unit(unit::COUNT)
            .values(BREAKER_STATES)
            .runbook("BreakerOpen")
            .link_to_dashboard("resilience")
            .query(metric("palisade.breaker.state").now().max_by(BREAKER_LABELS))
            .sized(5, 6),
        state_timeline("Failing dependencies")
            .description("Stores, upstreams, brokers and background jobs whose probes failed in the time range: red while they fail.")
            .remediation("The job works with a dependency that is down. `/readyz` on its admin port has the reason.")
            .unit(unit::COUNT)
            .values(READY_STATES)
            .without_data("No dependency failed")
            .runbook("DependencyDown")
            .link_to_dashboard("runtime")
            .query(
                metric("palisade.dependency.up")
                    .now()
                    .min_by(["job", "dependency"])
                    .failing()
                    .may_be_absent("no dependency fails in a healthy system"),
            )
            .sized(5, 6),
        timeseries("Shed, rejected, timed out / s")
            .description("Shed requests, calls rejected by an open breaker, exceeded deadlines, and retries denied by the budget.")
            .remediation("Shed: overload. Breaker, deadline: an upstream fails or is slow. No budget: most calls fail.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .link_to_dashboard("resilience")
            .query(rate_by_job("palisade.requests.shed").legend_prefix("shed"))
            .query(rate_by_job("palisade.breaker.rejected").legend_prefix("breaker"))
            .query(rate_by_job("palisade.request.timeouts").legend_prefix("deadline"))
            .query(rate_by_job("palisade.retry.budget.exhausted").legend_prefix("no budget"))
            .sized(4, 6),
        timeseries("DB p95 by system")
            .description("95th percentile of operation durations by store, including the wait for a connection.")
            .remediation("Check whether the operations or the pool waits are slow.")
            .unit(unit::SECONDS)
            .limits(0.1, 0.5)
            .link_to_dashboard("data")
            .query(store_operations().quantile(0.95, ["job", "db.system.name"]))
            .sized(4, 6),
        table("Firing alerts")
            .description("Alerts that fire now, with their runbooks: click a row.")
            .remediation("Begin with a page. A ticket beside it is often its cause, and its runbook says how to verify that.")
            .unit(unit::COUNT)
            .without_data("No alert fires")
            .runbook_of_row()
            .query(
                firing_alerts().now().max_by(["severity", "alertname", "job", "slo"]).may_be_absent("no alert fires in a healthy system"),
            )
            .sized(6, 6),
    ]
}

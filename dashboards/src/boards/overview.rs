//! In one screen: which hop is sick, and why.

use super::{BREAKER, answered, call_errors, db, every_process, hop_tax, http, http_errors};
use crate::{
    dashboard::Dashboard,
    panel::{Color, Panel, Traces, timeseries, stat, table, state_timeline, unit},
    query::{Query, external_metric, metric},
};

/// The values of `palisade_breaker_state`.
pub(super) const BREAKER_STATES: &[(u8, &str, Color)] =
    &[(0, "closed", Color::Green), (1, "open", Color::Red), (2, "half-open", Color::Yellow)];

pub(super) fn dashboard() -> Dashboard {
    let about = "Which hop is sick, and why: users first, then each hop, then the reasons that the processes themselves give.";
    Dashboard::new("overview", "Palisade / 1 Overview", about)
        .row("Now", current_status())
        .row("Users (gateway)", users())
        .row("Hops", hops())
        .row("Why", likely_causes())
}

fn current_status() -> [Panel; 8] {
    let open = metric("palisade.breaker.state").now().above(0.0).count_by([]).or_zero(&metric("palisade.breaker.state"));
    let oldest = metric("palisade.saga.oldest_in_flight").now().max_by([]);
    let sagas = metric("palisade.saga.in_flight").now().sum_by([]);
    let broken = metric("palisade.invariant.violations").now().sum_by([]);
    let faults = metric("palisade.faults.active").now().sum_by([]);
    let firing = external_metric("ALERTS").is("alertstate", "firing").now().count_by([]).or_zero(&every_process());
    [
        stat("Targets up")
            .description("Share of the chosen processes that Prometheus can scrape.")
            .remediation("A process is down or unreachable: see its log and its `/livez`.")
            .share_of_good(1.0, 0.99)
            .runbook("TargetDown")
            .query(external_metric("up").now().sum_by([]) / external_metric("up").now().count_by([])),
        stat("Alerts firing")
            .description("Alerts that fire now, of all jobs.")
            .remediation("The red marks in the graphs say which and since when.")
            .unit(unit::COUNT)
            .limit(1.0)
            .query(firing),
        stat("Breakers not closed")
            .description("Breakers, of targets and of endpoints, that refuse some or all calls now.")
            .remediation("The timeline below says whose; the target is sick, or is slow.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("BreakerOpen")
            .link_to_dashboard("resilience")
            .query(open),
        stat("Sagas in flight")
            .description("Orders that are not settled yet, as the store has them.")
            .remediation("It should follow the load. If it only grows, products or the orders store does not answer.")
            .unit(unit::COUNT)
            .link_to_dashboard("orders")
            .query(sagas),
        stat("Oldest saga")
            .description("Age of the oldest order that is not settled.")
            .remediation("`GET /saga/stuck` on the admin port of orders lists them; `POST /saga/retry/{id}` tries one again.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .link_to_dashboard("orders")
            .query(oldest),
        stat("Invariants broken")
            .description("What the last audits of orders and stock found broken. Anything but 0 is a bug.")
            .remediation("`GET /invariants` on the admin ports names each; stop selling before looking further.")
            .unit(unit::COUNT)
            .limit(1.0)
            .link_to_dashboard("orders")
            .query(broken),
        stat("Faults on purpose")
            .description("Rules that inject faults, in all processes. 0 on a normal day.")
            .remediation("Somebody tests. `DELETE /faults` on the admin port ends it.")
            .unit(unit::COUNT)
            .limit(1.0)
            .link_to_dashboard("resilience")
            .query(faults),
        stat("Spans lost / s")
            .description("Spans that did not reach the collector: without them traces have holes.")
            .remediation("The collector is down or slow, or the queue of spans is too short.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .runbook("TelemetryLoss")
            .link_to_dashboard("runtime")
            .query(metric("otel.sdk.exporter.span.exported").is_not("error.type", "").rate().sum_by([]).or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(3, 3))
}

fn users() -> [Panel; 5] {
    let spent = external_metric("slo:errors:ratio_rate30d").now().max_by(["slo"]);
    let fast = external_metric("slo:errors:ratio_rate1h").now().max_by(["slo"]);
    let latency = |quantile| http().quantile(quantile, []);
    [
        timeseries("Requests / s")
            .description("HTTP requests answered, of all routes.")
            .remediation("A sudden fall is an outage in front of us, or refused connections.")
            .unit(unit::REQUESTS)
            .traces(Traces::GATEWAY)
            .link_to_dashboard("gateway")
            .query(http().count().rate().sum_by([]))
            .sized(5, 6),
        timeseries("Error ratio (5xx)")
            .description("Share of requests answered with 5xx. Yellow at 0.1 %, which is the objective.")
            .remediation("Look below which hop has errors too; if none has, it is the gateway itself.")
            .errors()
            .traces(Traces::GATEWAY.failed())
            .runbook("ErrorBudgetBurnFast")
            .link_to_dashboard("gateway")
            .query(http_errors([]))
            .sized(5, 6),
        timeseries("Latency p50 / p95 / p99")
            .description("How long requests take, to the last byte. The objective: 99 % below 250 ms.")
            .remediation("Compare with the p99 of each service and of the stores; if those are low, look at queues and limits.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::GATEWAY.slow())
            .link_to_dashboard("gateway")
            .query(latency(0.5).legend_prefix("p50"))
            .query(latency(0.95).legend_prefix("p95"))
            .query(latency(0.99).legend_prefix("p99"))
            .sized(6, 6),
        stat("30-day error budget left")
            .description("What is left of each objective's errors of 30 days, for all jobs. Below 0 the objective is missed.")
            .remediation("Put reliability before features until it recovers.")
            .share_of_good(0.5, 0.0)
            .runbook("ErrorBudgetBurnSlow")
            .query((spent / objective().complement()).complement())
            .sized(4, 6),
        stat("Burn rate 1 h")
            .description("How many times faster than allowed the budget is spent. 1 spends it in exactly 30 days, 14.4 in two.")
            .remediation("Above 14.4 it is an emergency: find the hop below.")
            .unit(unit::NUMBER)
            .limits(1.0, 14.4)
            .runbook("ErrorBudgetBurnFast")
            .query(fast / objective().complement())
            .sized(4, 6),
    ]
}

fn objective() -> Query {
    external_metric("slo:objective:ratio").now().max_by(["slo"])
}

fn hops() -> [Panel; 4] {
    [
        timeseries("gRPC calls / s by service")
            .description("Calls that products and orders answer.")
            .remediation("If users are served and this falls to 0, the gateway refuses: see its breakers.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .link_to_dashboard("grpc")
            .query(answered().count().rate().sum_by(["job"])),
        timeseries("gRPC error ratio by service")
            .description("Share of calls that failed by the server's own fault; a `NOT_FOUND` is an answer.")
            .remediation("The service with errors, and none behind it, is the sick one.")
            .errors()
            .traces(Traces::SERVICE.failed())
            .link_to_dashboard("grpc")
            .query(call_errors(answered, ["job"])),
        timeseries("gRPC p99 by service")
            .description("How long the slowest hundredth of calls takes, seen by who answers.")
            .remediation("If the stores are slow too, it is the database; if not, look at queues and the processor.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::SERVICE.slow())
            .link_to_dashboard("grpc")
            .query(answered().quantile(0.99, ["job"])),
        timeseries("Hop tax: p95 made minus p95 answered")
            .description(
                "What a call costs beside the work of who answers: network, both stacks, retries. Needs caller and server \
                    among the chosen jobs.",
            )
            .remediation("Retries, queues on the caller's side, or a slow network: see resilience.")
            .unit(unit::SECONDS)
            .link_to_dashboard("resilience")
            .query(hop_tax()),
    ]
    .map(|panel| panel.sized(6, 6))
}

fn likely_causes() -> [Panel; 4] {
    let refused = |name| metric(name).rate().sum_by(["job"]);
    [
        state_timeline("Breakers")
            .description("The state of every breaker: green closed, red open, yellow half-open.")
            .remediation("Who calls is the job, who is sick is the target.")
            .unit(unit::COUNT)
            .values(BREAKER_STATES)
            .runbook("BreakerOpen")
            .link_to_dashboard("resilience")
            .query(metric("palisade.breaker.state").now().max_by(BREAKER)),
        timeseries("Refused and given up / s")
            .description("Requests shed, calls refused by an open breaker, deadlines that ran out, and retries without budget.")
            .remediation("Sheds: too much load. Breakers and deadlines: somebody behind is sick. Budget: most calls fail.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .link_to_dashboard("resilience")
            .query(refused("palisade.requests.shed").legend_prefix("shed"))
            .query(refused("palisade.breaker.rejected").legend_prefix("breaker"))
            .query(refused("palisade.request.timeouts").legend_prefix("deadline"))
            .query(refused("palisade.retry.budget.exhausted").legend_prefix("no budget")),
        timeseries("DB p95 by system")
            .description("How long operations on each store take, waiting for a connection included.")
            .remediation("See whether the operations or the pool's waits are slow.")
            .unit(unit::SECONDS)
            .limits(0.1, 0.5)
            .link_to_dashboard("data")
            .query(db().quantile(0.95, ["job", "db.system.name"])),
        table("Versions")
            .description("What runs where. Two versions of one job are a rollout under way.")
            .remediation("If errors began with a blue mark in the graphs, roll that version back.")
            .unit(unit::COUNT)
            .link_to_dashboard("runtime")
            .query(metric("build.info").now().max_by(["job", "instance", "version", "revision"])),
    ]
    .map(|panel| panel.sized(6, 6))
}

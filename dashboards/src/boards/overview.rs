//! In one screen: which hop is sick, and why.

use super::{BREAKER, answered, call_errors, db, every_process, hop_tax, http, http_errors};
use crate::{
    dashboard::Dashboard,
    panel::{Color, Panel, Traces, graph, number, table, timeline, unit},
    query::{Query, foreign, metric},
};

/// The values of `palisade_breaker_state`.
pub(super) const BREAKER_STATES: &[(u8, &str, Color)] =
    &[(0, "closed", Color::Green), (1, "open", Color::Red), (2, "half-open", Color::Yellow)];

pub(super) fn dashboard() -> Dashboard {
    let about = "Which hop is sick, and why: users first, then each hop, then the reasons that the processes themselves give.";
    Dashboard::new("overview", "Palisade / 1 Overview", about)
        .row("Now", now())
        .row("Users (gateway)", users())
        .row("Hops", hops())
        .row("Why", why())
}

fn now() -> [Panel; 8] {
    let open = metric("palisade.breaker.state").now().above(0.0).count_by([]).or_zero(&metric("palisade.breaker.state"));
    let oldest = metric("palisade.saga.oldest_in_flight").now().max_by([]);
    let sagas = metric("palisade.saga.in_flight").now().sum_by([]);
    let broken = metric("palisade.invariant.violations").now().sum_by([]);
    let faults = metric("palisade.faults.active").now().sum_by([]);
    let firing = foreign("ALERTS").is("alertstate", "firing").now().count_by([]).or_zero(&every_process());
    [
        number("Targets up")
            .tells("Share of the chosen processes that Prometheus can scrape.")
            .if_bad("A process is down or unreachable: see its log and its `/livez`.")
            .share_of_good(1.0, 0.99)
            .runbook("TargetDown")
            .query(foreign("up").now().sum_by([]) / foreign("up").now().count_by([])),
        number("Alerts firing")
            .tells("Alerts that fire now, of all jobs.")
            .if_bad("The red marks in the graphs say which and since when.")
            .unit(unit::COUNT)
            .limit(1.0)
            .query(firing),
        number("Breakers not closed")
            .tells("Breakers, of targets and of endpoints, that refuse some or all calls now.")
            .if_bad("The timeline below says whose; the target is sick, or is slow.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("BreakerOpen")
            .more("resilience")
            .query(open),
        number("Sagas in flight")
            .tells("Orders that are not settled yet, as the store has them.")
            .if_bad("It should follow the load. If it only grows, products or the orders store does not answer.")
            .unit(unit::COUNT)
            .more("orders")
            .query(sagas),
        number("Oldest saga")
            .tells("Age of the oldest order that is not settled.")
            .if_bad("`GET /saga/stuck` on the admin port of orders lists them; `POST /saga/retry/{id}` tries one again.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .more("orders")
            .query(oldest),
        number("Invariants broken")
            .tells("What the last audits of orders and stock found broken. Anything but 0 is a bug.")
            .if_bad("`GET /invariants` on the admin ports names each; stop selling before looking further.")
            .unit(unit::COUNT)
            .limit(1.0)
            .more("orders")
            .query(broken),
        number("Faults on purpose")
            .tells("Rules that inject faults, in all processes. 0 on a normal day.")
            .if_bad("Somebody tests. `DELETE /faults` on the admin port ends it.")
            .unit(unit::COUNT)
            .limit(1.0)
            .more("resilience")
            .query(faults),
        number("Spans lost / s")
            .tells("Spans that did not reach the collector: without them traces have holes.")
            .if_bad("The collector is down or slow, or the queue of spans is too short.")
            .unit(unit::PER_SECOND)
            .limit(0.1)
            .runbook("TelemetryLoss")
            .more("runtime")
            .query(metric("otel.sdk.exporter.span.exported").is_not("error.type", "").rate().sum_by([]).or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(3, 3))
}

fn users() -> [Panel; 5] {
    let spent = foreign("slo:errors:ratio_rate30d").now().max_by(["slo"]);
    let fast = foreign("slo:errors:ratio_rate1h").now().max_by(["slo"]);
    let latency = |quantile| http().quantile(quantile, []);
    [
        graph("Requests / s")
            .tells("HTTP requests answered, of all routes.")
            .if_bad("A sudden fall is an outage in front of us, or refused connections.")
            .unit(unit::REQUESTS)
            .traces(Traces::GATEWAY)
            .more("gateway")
            .query(http().count().rate().sum_by([]))
            .sized(5, 6),
        graph("Error ratio (5xx)")
            .tells("Share of requests answered with 5xx. Yellow at 0.1 %, which is the objective.")
            .if_bad("Look below which hop has errors too; if none has, it is the gateway itself.")
            .errors()
            .traces(Traces::GATEWAY.failed())
            .runbook("ErrorBudgetBurnFast")
            .more("gateway")
            .query(http_errors([]))
            .sized(5, 6),
        graph("Latency p50 / p95 / p99")
            .tells("How long requests take, to the last byte. The objective: 99 % below 250 ms.")
            .if_bad("Compare with the p99 of each service and of the stores; if those are low, look at queues and limits.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::GATEWAY.slow())
            .more("gateway")
            .query(latency(0.5).called("p50"))
            .query(latency(0.95).called("p95"))
            .query(latency(0.99).called("p99"))
            .sized(6, 6),
        number("30-day error budget left")
            .tells("What is left of each objective's errors of 30 days, for all jobs. Below 0 the objective is missed.")
            .if_bad("Put reliability before features until it recovers.")
            .share_of_good(0.5, 0.0)
            .runbook("ErrorBudgetBurnSlow")
            .query((spent / objective().complement()).complement())
            .sized(4, 6),
        number("Burn rate 1 h")
            .tells("How many times faster than allowed the budget is spent. 1 spends it in exactly 30 days, 14.4 in two.")
            .if_bad("Above 14.4 it is an emergency: find the hop below.")
            .unit(unit::NUMBER)
            .limits(1.0, 14.4)
            .runbook("ErrorBudgetBurnFast")
            .query(fast / objective().complement())
            .sized(4, 6),
    ]
}

fn objective() -> Query {
    foreign("slo:objective:ratio").now().max_by(["slo"])
}

fn hops() -> [Panel; 4] {
    [
        graph("gRPC calls / s by service")
            .tells("Calls that products and orders answer.")
            .if_bad("If users are served and this falls to 0, the gateway refuses: see its breakers.")
            .unit(unit::REQUESTS)
            .traces(Traces::SERVICE)
            .more("grpc")
            .query(answered().count().rate().sum_by(["job"])),
        graph("gRPC error ratio by service")
            .tells("Share of calls that failed by the server's own fault; a `NOT_FOUND` is an answer.")
            .if_bad("The service with errors, and none behind it, is the sick one.")
            .errors()
            .traces(Traces::SERVICE.failed())
            .more("grpc")
            .query(call_errors(answered, ["job"])),
        graph("gRPC p99 by service")
            .tells("How long the slowest hundredth of calls takes, seen by who answers.")
            .if_bad("If the stores are slow too, it is the database; if not, look at queues and the processor.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::SERVICE.slow())
            .more("grpc")
            .query(answered().quantile(0.99, ["job"])),
        graph("Hop tax: p95 made minus p95 answered")
            .tells(
                "What a call costs beside the work of who answers: network, both stacks, retries. Needs caller and server \
                    among the chosen jobs.",
            )
            .if_bad("Retries, queues on the caller's side, or a slow network: see resilience.")
            .unit(unit::SECONDS)
            .more("resilience")
            .query(hop_tax()),
    ]
    .map(|panel| panel.sized(6, 6))
}

fn why() -> [Panel; 4] {
    let refused = |name| metric(name).rate().sum_by(["job"]);
    [
        timeline("Breakers")
            .tells("The state of every breaker: green closed, red open, yellow half-open.")
            .if_bad("Who calls is the job, who is sick is the target.")
            .unit(unit::COUNT)
            .values(BREAKER_STATES)
            .runbook("BreakerOpen")
            .more("resilience")
            .query(metric("palisade.breaker.state").now().max_by(BREAKER)),
        graph("Refused and given up / s")
            .tells("Requests shed, calls refused by an open breaker, deadlines that ran out, and retries without budget.")
            .if_bad("Sheds: too much load. Breakers and deadlines: somebody behind is sick. Budget: most calls fail.")
            .unit(unit::REQUESTS)
            .runbook("LoadShedding")
            .more("resilience")
            .query(refused("palisade.requests.shed").called("shed"))
            .query(refused("palisade.breaker.rejected").called("breaker"))
            .query(refused("palisade.request.timeouts").called("deadline"))
            .query(refused("palisade.retry.budget.exhausted").called("no budget")),
        graph("DB p95 by system")
            .tells("How long operations on each store take, waiting for a connection included.")
            .if_bad("See whether the operations or the pool's waits are slow.")
            .unit(unit::SECONDS)
            .limits(0.1, 0.5)
            .more("data")
            .query(db().quantile(0.95, ["job", "db.system.name"])),
        table("Versions")
            .tells("What runs where. Two versions of one job are a rollout under way.")
            .if_bad("If errors began with a blue mark in the graphs, roll that version back.")
            .unit(unit::COUNT)
            .more("runtime")
            .query(metric("build.info").now().max_by(["job", "instance", "version", "revision"])),
    ]
    .map(|panel| panel.sized(6, 6))
}

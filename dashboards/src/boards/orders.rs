//! What the business sees: orders, the sagas that carry them out, and stock.

use super::every_process;
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, areas, graph, number, unit},
    query::{Series, metric},
};

pub(super) fn dashboard() -> Dashboard {
    let about = "Whether orders are carried out: outcomes, sagas under way and how old they are, stock, and what audits find.";
    Dashboard::new("orders", "Palisade / 6 Orders, saga, stock", about)
        .row("Now", now())
        .row("Orders", orders())
        .row("Sagas", sagas())
        .row("Stock", stock())
        .row("Outbox", outbox())
}

/// The processes that carry out orders.
fn of_orders() -> Series {
    metric("palisade.outbox.pending")
}

fn now() -> [Panel; 6] {
    [
        number("Oldest unfinished saga")
            .tells("Age of the oldest order that is not settled.")
            .if_bad("`GET /saga/stuck` on the admin port of orders says what it waits for; `POST /saga/retry/{id}` tries it again.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.oldest_in_flight").now().max_by(["saga"])),
        number("Invariant violations")
            .tells("What the last audit found broken: `orders`, or `stock`. It must be 0.")
            .if_bad("A bug, or somebody wrote into a database. `GET /invariants` on the admin ports names each.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("StockInvariantViolated")
            .query(metric("palisade.invariant.violations").now().sum_by(["check"])),
        number("Products out of stock")
            .tells("Products with nothing left to sell.")
            .if_bad("Buyers get 409 `insufficient_stock`: restock, or take them off the shelf.")
            .unit(unit::COUNT)
            .query(metric("palisade.stock.out_products").now().sum_by([])),
        number("Overdue holds")
            .tells("Holds past their time whose stock was not given back yet.")
            .if_bad("The sweeper of products does not keep up, or stands: its log says why.")
            .unit(unit::COUNT)
            .limits(1.0, 100.0)
            .query(metric("palisade.stock.overdue_holds").now().sum_by([])),
        number("Outbox pending")
            .tells("Events that wait for the broker.")
            .if_bad("The broker is away, or takes none: `GET /readyz` of orders says so. None is lost.")
            .unit(unit::COUNT)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.pending").now().sum_by([])),
        number("Restarts shown")
            .tells("Restarts in all the time that is shown; a restart resumes sagas.")
            .if_bad("Orders that restarts again and again finishes nothing: see its log.")
            .unit(unit::COUNT)
            .limits(1.0, 3.0)
            .runbook("RestartLoop")
            .query(metric("process_start_time_seconds").changes_shown().sum_by(["job"]).or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(4, 4))
}

fn orders() -> [Panel; 4] {
    let orders = || metric("palisade.orders");
    let failed = orders().is("outcome", "failed").rate().sum_by(["job"]);
    let keyed = || metric("palisade.idempotency.requests");
    [
        areas("Orders / min by outcome")
            .tells("Orders that reached an outcome.")
            .if_bad("`failed` has its reason in the order: no stock, unknown product, or products away for too long.")
            .unit(unit::PER_MINUTE)
            .traces(Traces::SERVICE)
            .query(orders().rate().sum_by(["job", "outcome"]).per_minute().or_zero(&of_orders())),
        graph("Failed orders ratio")
            .tells("Share of outcomes that are failures. No stock is one too, so some are normal.")
            .if_bad("Compare with the reservations below: `insufficient` is business, the rest is not.")
            .share(0.1, 0.3)
            .traces(Traces::SERVICE.failed())
            .runbook("SagaFailed")
            .query(failed.share_of(&orders().rate().sum_by(["job"])).or_zero(&of_orders())),
        areas("Idempotency keys / s")
            .tells("Orders asked for with a key: new, answered again (replay), the key of another order (conflict), or still in progress.")
            .if_bad("Many `replay`: clients retry, so they see errors. `conflict`: a client makes up its keys wrongly.")
            .unit(unit::REQUESTS)
            .query(keyed().rate().sum_by(["job", "outcome"]).or_zero(&of_orders())),
        graph("Idempotent replays / s")
            .tells("Orders that were asked for again and not made again.")
            .if_bad("As many as the new ones: clients do not see our answers. Look at the gateway's 504.")
            .unit(unit::REQUESTS)
            .query(keyed().is("outcome", "replay").rate().sum_by(["job"]).or_zero(&of_orders())),
    ]
    .map(|panel| panel.sized(6, 8))
}

fn sagas() -> [Panel; 6] {
    let by = ["job", "saga"];
    let step = || metric("palisade.saga.step.duration");
    let finished = || metric("palisade.saga.finished");
    [
        areas("Sagas in flight by state")
            .tells("Orders under way, as the store has them: it survives restarts.")
            .if_bad(
                "`PENDING` grows: products does not answer. `PRODUCT_RESERVED` grows: confirming fails. `CANCELLED`, \
                     `FAILED`: releases wait.",
            )
            .unit(unit::COUNT)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.in_flight").now().sum_by(["job", "saga", "state"])),
        graph("Oldest saga under way")
            .tells("Age of the oldest order that is not settled, over time.")
            .if_bad("A straight line upwards is one order that is stuck; after 10 minutes it fails by itself.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.oldest_in_flight").now().max_by(by)),
        graph("Begun and ended / s")
            .tells("Sagas begun and ended. The lines should lie on each other.")
            .if_bad("More begun than ended: they pile up, see their states.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.saga.started").rate().sum_by(by).or_zero(&of_orders()).called("begun"))
            .query(finished().rate().sum_by(by).or_zero(&of_orders()).called("ended")),
        areas("Ended / s by outcome")
            .tells("How sagas ended.")
            .if_bad("`failed` and `cancelled` give stock back: compare with `released` below.")
            .unit(unit::PER_SECOND)
            .runbook("SagaFailed")
            .query(finished().rate().sum_by(["job", "saga", "outcome"]).or_zero(&of_orders())),
        graph("Step p95 by outcome")
            .tells("How long single steps take, by their answer.")
            .if_bad("A slow step with an answer: products is slow. Without one: it timed out and is tried again.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::SERVICE.slow())
            .query(step().quantile(0.95, ["job", "step", "outcome"])),
        areas("Steps / s by outcome")
            .tells("Steps taken, by their answer.")
            .if_bad("More steps than sagas explain: they are repeated, because answers do not come.")
            .unit(unit::PER_SECOND)
            .query(step().count().rate().sum_by(["job", "step", "outcome"])),
    ]
}

fn stock() -> [Panel; 3] {
    [
        areas("Reservations / s by outcome")
            .tells("Reservations by what became of them.")
            .if_bad("`insufficient`: sold out. `refused`: it came after its release. Many `released`: orders fail or are cancelled.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.stock.reservations").rate().sum_by(["job", "outcome"]).or_zero(&metric("palisade.stock.out_products"))),
        areas("Units by state")
            .tells("Units of all products together: available, reserved, sold.")
            .if_bad("The sum changes only when somebody restocks. `reserved` that stays high: holds are not settled.")
            .unit(unit::COUNT)
            .query(metric("palisade.stock.units").now().sum_by(["state"])),
        graph("Violations over time")
            .tells("What audits found broken, by kind of audit.")
            .if_bad("The first red sample is when it broke: look at deploys and restarts just before.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("StockInvariantViolated")
            .query(metric("palisade.invariant.violations").now().sum_by(["job", "check"])),
    ]
}

fn outbox() -> [Panel; 4] {
    [
        graph("Outbox backlog")
            .tells("Events that wait for the broker; counted up to 10,000.")
            .if_bad("The broker is away, or its stream is full. When it is back they go in order, 256 at a time.")
            .unit(unit::COUNT)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.pending").now().sum_by(["job"])),
        graph("Outbox age")
            .tells("Age of the oldest event not published yet.")
            .if_bad("A straight line upwards: nothing is published at all.")
            .limits(10.0, 60.0)
            .unit(unit::SECONDS)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.oldest").now().max_by(["job"])),
        areas("Events to the broker / s")
            .tells("Events handed to the broker, by what became of them.")
            .if_bad("`unavailable`: it is away or full, they wait. `refused`, then `dead`: it does not want them, see the log.")
            .unit(unit::PER_SECOND)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.published").rate().sum_by(["job", "outcome"]).or_zero(&of_orders())),
        graph("Dead events")
            .tells("Events put aside because the broker refused them too often.")
            .if_bad("`GET /events/dead` on the admin port of orders says why; `POST /events/redrive` tries them again.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("OutboxDeadLetters")
            .query(metric("palisade.outbox.dead").now().max_by(["job"])),
    ]
    .map(|panel| panel.sized(6, 8))
}

//! What the business sees: orders, the sagas that carry them out, and stock.

use super::every_process;
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, timeseries, stat, unit},
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
        stat("Oldest unfinished saga")
            .description("Age of the oldest order that is not settled.")
            .remediation("`GET /saga/stuck` on the admin port of orders says what it waits for; `POST /saga/retry/{id}` tries it again.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.oldest_in_flight").now().max_by(["saga"])),
        stat("Invariant violations")
            .description("What the last audit found broken: `orders`, or `stock`. It must be 0.")
            .remediation("A bug, or somebody wrote into a database. `GET /invariants` on the admin ports names each.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("StockInvariantViolated")
            .query(metric("palisade.invariant.violations").now().sum_by(["check"])),
        stat("Products out of stock")
            .description("Products with nothing left to sell.")
            .remediation("Buyers get 409 `insufficient_stock`: restock, or take them off the shelf.")
            .unit(unit::COUNT)
            .query(metric("palisade.stock.out_products").now().sum_by([])),
        stat("Overdue holds")
            .description("Holds past their time whose stock was not given back yet.")
            .remediation("The sweeper of products does not keep up, or stands: its log says why.")
            .unit(unit::COUNT)
            .limits(1.0, 100.0)
            .query(metric("palisade.stock.overdue_holds").now().sum_by([])),
        stat("Outbox pending")
            .description("Events that wait for the broker.")
            .remediation("The broker is away, or takes none: `GET /readyz` of orders says so. None is lost.")
            .unit(unit::COUNT)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.pending").now().sum_by([])),
        stat("Restarts shown")
            .description("Restarts in all the time that is shown; a restart resumes sagas.")
            .remediation("Orders that restarts again and again finishes nothing: see its log.")
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
        stacked_timeseries("Orders / min by outcome")
            .description("Orders that reached an outcome.")
            .remediation("`failed` has its reason in the order: no stock, unknown product, or products away for too long.")
            .unit(unit::PER_MINUTE)
            .traces(Traces::SERVICE)
            .query(orders().rate().sum_by(["job", "outcome"]).per_minute().or_zero(&of_orders())),
        timeseries("Failed orders ratio")
            .description("Share of outcomes that are failures. No stock is one too, so some are normal.")
            .remediation("Compare with the reservations below: `insufficient` is business, the rest is not.")
            .share(0.1, 0.3)
            .traces(Traces::SERVICE.failed())
            .runbook("SagaFailed")
            .query(failed.share_of(&orders().rate().sum_by(["job"])).or_zero(&of_orders())),
        stacked_timeseries("Idempotency keys / s")
            .description("Orders asked for with a key: new, answered again (replay), the key of another order (conflict), or still in progress.")
            .remediation("Many `replay`: clients retry, so they see errors. `conflict`: a client makes up its keys wrongly.")
            .unit(unit::REQUESTS)
            .query(keyed().rate().sum_by(["job", "outcome"]).or_zero(&of_orders())),
        timeseries("Idempotent replays / s")
            .description("Orders that were asked for again and not made again.")
            .remediation("As many as the new ones: clients do not see our answers. Look at the gateway's 504.")
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
        stacked_timeseries("Sagas in flight by state")
            .description("Orders under way, as the store has them: it survives restarts.")
            .remediation(
                "`PENDING` grows: products does not answer. `PRODUCT_RESERVED` grows: confirming fails. `CANCELLED`, \
                     `FAILED`: releases wait.",
            )
            .unit(unit::COUNT)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.in_flight").now().sum_by(["job", "saga", "state"])),
        timeseries("Oldest saga under way")
            .description("Age of the oldest order that is not settled, over time.")
            .remediation("A straight line upwards is one order that is stuck; after 10 minutes it fails by itself.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.oldest_in_flight").now().max_by(by)),
        timeseries("Begun and ended / s")
            .description("Sagas begun and ended. The lines should lie on each other.")
            .remediation("More begun than ended: they pile up, see their states.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.saga.started").rate().sum_by(by).or_zero(&of_orders()).legend_prefix("begun"))
            .query(finished().rate().sum_by(by).or_zero(&of_orders()).legend_prefix("ended")),
        stacked_timeseries("Ended / s by outcome")
            .description("How sagas ended.")
            .remediation("`failed` and `cancelled` give stock back: compare with `released` below.")
            .unit(unit::PER_SECOND)
            .runbook("SagaFailed")
            .query(finished().rate().sum_by(["job", "saga", "outcome"]).or_zero(&of_orders())),
        timeseries("Step p95 by outcome")
            .description("How long single steps take, by their answer.")
            .remediation("A slow step with an answer: products is slow. Without one: it timed out and is tried again.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::SERVICE.slow())
            .query(step().quantile(0.95, ["job", "step", "outcome"])),
        stacked_timeseries("Steps / s by outcome")
            .description("Steps taken, by their answer.")
            .remediation("More steps than sagas explain: they are repeated, because answers do not come.")
            .unit(unit::PER_SECOND)
            .query(step().count().rate().sum_by(["job", "step", "outcome"])),
    ]
}

fn stock() -> [Panel; 3] {
    [
        stacked_timeseries("Reservations / s by outcome")
            .description("Reservations by what became of them.")
            .remediation("`insufficient`: sold out. `refused`: it came after its release. Many `released`: orders fail or are cancelled.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.stock.reservations").rate().sum_by(["job", "outcome"]).or_zero(&metric("palisade.stock.out_products"))),
        stacked_timeseries("Units by state")
            .description("Units of all products together: available, reserved, sold.")
            .remediation("The sum changes only when somebody restocks. `reserved` that stays high: holds are not settled.")
            .unit(unit::COUNT)
            .query(metric("palisade.stock.units").now().sum_by(["state"])),
        timeseries("Violations over time")
            .description("What audits found broken, by kind of audit.")
            .remediation("The first red sample is when it broke: look at deploys and restarts just before.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("StockInvariantViolated")
            .query(metric("palisade.invariant.violations").now().sum_by(["job", "check"])),
    ]
}

fn outbox() -> [Panel; 4] {
    [
        timeseries("Outbox backlog")
            .description("Events that wait for the broker; counted up to 10,000.")
            .remediation("The broker is away, or its stream is full. When it is back they go in order, 256 at a time.")
            .unit(unit::COUNT)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.pending").now().sum_by(["job"])),
        timeseries("Outbox age")
            .description("Age of the oldest event not published yet.")
            .remediation("A straight line upwards: nothing is published at all.")
            .limits(10.0, 60.0)
            .unit(unit::SECONDS)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.oldest").now().max_by(["job"])),
        stacked_timeseries("Events to the broker / s")
            .description("Events handed to the broker, by what became of them.")
            .remediation("`unavailable`: it is away or full, they wait. `refused`, then `dead`: it does not want them, see the log.")
            .unit(unit::PER_SECOND)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.published").rate().sum_by(["job", "outcome"]).or_zero(&of_orders())),
        timeseries("Dead events")
            .description("Events put aside because the broker refused them too often.")
            .remediation("`GET /events/dead` on the admin port of orders says why; `POST /events/redrive` tries them again.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("OutboxDeadLetters")
            .query(metric("palisade.outbox.dead").now().max_by(["job"])),
    ]
    .map(|panel| panel.sized(6, 8))
}

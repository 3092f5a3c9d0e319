//! Orders dashboard: order outcomes, sagas and the transactional outbox.

use super::{every_process, time_to_settle};
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stacked_timeseries, stat, timeseries, unit},
    query::{Series, metric},
};

pub(super) fn dashboard() -> Dashboard {
    let about = "Order outcomes, sagas in flight and their age, the outbox.";
    Dashboard::new("orders", "Palisade / 08 Orders and sagas", about)
        .row("Current status", current_status())
        .row("Orders", orders())
        .row("Sagas", sagas())
        .row("Outbox", outbox())
}

/// Witness series for the processes that export order metrics, used by `or_zero`.
fn order_metrics_witness() -> Series {
    metric("palisade.saga.oldest_in_flight")
}

fn current_status() -> [Panel; 4] {
    [
        stat("Oldest unfinished saga")
            .description("Age of the oldest order with an unfinished saga.")
            .remediation("`GET /saga/stuck` on the admin port of orders shows the cause, `POST /saga/retry/{id}` retries it.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.oldest_in_flight").now().max_by(["saga"])),
        super::invariant_violations(),
        stat("Outbox pending")
            .description("Outbox events not published yet.")
            .remediation("The broker is down or rejects events: see `GET /readyz` of orders. No event is lost.")
            .unit(unit::COUNT)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.pending").now().max_by(["job"]).sum_by([])),
        stat("Restarts")
            .description("Process restarts in the selected time range. Sagas resume after a restart.")
            .remediation("Repeated restarts of orders delay every saga: see its log.")
            .unit(unit::COUNT)
            .limits(1.0, 3.0)
            .runbook("RestartLoop")
            .query(metric("process_start_time_seconds").changes_in_range().sum_by(["job"]).or_zero(&every_process())),
    ]
    .map(|panel| panel.sized(6, 4))
}

fn orders() -> [Panel; 6] {
    let orders = || metric("palisade.orders");
    let failed = orders().is("outcome", "failed").rate().sum_by(["job"]);
    let idempotency_requests = || metric("palisade.idempotency.requests");
    [
        stacked_timeseries("Orders / min by outcome")
            .description("Orders per minute by outcome.")
            .remediation("`failed`: the order has the reason (insufficient stock, unknown product, or products unavailable for too long).")
            .unit(unit::PER_MINUTE)
            .traces(Traces::SERVICE)
            .query(orders().rate().sum_by(["job", "outcome"]).per_minute().or_zero(&order_metrics_witness())),
        timeseries("Failed orders ratio")
            .description("Share of orders that failed. Insufficient stock counts too, so the baseline is above 0.")
            .remediation("Compare with the reservations below: `insufficient` is a business outcome, the rest are faults.")
            .share(0.1, 0.3)
            .traces(Traces::SERVICE.failed())
            .runbook("SagaFailed")
            .query(failed.share_of(&orders().rate().sum_by(["job"])).or_zero(&order_metrics_witness())),
        stacked_timeseries("Order failures / min by reason")
            .description("Failed orders per minute, by reason.")
            .remediation(
                "`insufficient_stock`, `unknown_product`, `product_inactive`, `price_changed`: business outcomes. `products_unavailable`, \
                    `reservation_expired`: faults of products.",
            )
            .unit(unit::PER_MINUTE)
            .runbook("SagaFailed")
            .query(metric("palisade.orders.failures").rate().sum_by(["reason"]).per_minute()),
        time_to_settle(),
        stacked_timeseries("Idempotency keys / s")
            .description("Requests with an idempotency key: new, replay, conflict (key of another order), or still in progress.")
            .remediation("Many `replay`: clients do not receive the responses and retry, check the gateway's 504 rate. `conflict`: a client reuses keys.")
            .unit(unit::REQUESTS)
            .query(idempotency_requests().rate().sum_by(["job", "outcome"]).or_zero(&order_metrics_witness())),
        stacked_timeseries("Revisions / min by outcome")
            .description("Revisions of confirmed orders per minute that ended, by outcome.")
            .remediation("`refused`: products had too few units, or does not sell the product. Revisions that do not end are sagas in flight in state `CONFIRMED`.")
            .unit(unit::PER_MINUTE)
            .traces(Traces::SERVICE)
            .query(metric("palisade.orders.revisions").rate().sum_by(["job", "outcome"]).per_minute().or_zero(&order_metrics_witness())),
    ]
    .map(|panel| panel.sized(8, 8))
}

fn sagas() -> [Panel; 6] {
    let by = ["job", "saga"];
    let step = || metric("palisade.saga.step.duration");
    let finished = || metric("palisade.saga.finished");
    [
        stacked_timeseries("Sagas in flight by state")
            .description("Unfinished sagas in the store, by order status. Survives restarts.")
            .remediation(
                "`PENDING` grows: products does not respond. `PRODUCT_RESERVED` grows: confirmation fails. `CANCELLED`, \
                     `FAILED`: releases are pending. `CONFIRMED`: revisions are pending.",
            )
            .unit(unit::COUNT)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.in_flight").now().max_by(["job", "saga", "state"])),
        timeseries("Oldest saga over time")
            .description("Age of the oldest order with an unfinished saga, over time.")
            .remediation("A straight rising line is one stuck order. It fails automatically after 10 minutes.")
            .unit(unit::SECONDS)
            .limits(60.0, 300.0)
            .runbook("SagaStuck")
            .query(metric("palisade.saga.oldest_in_flight").now().max_by(by)),
        timeseries("Sagas started / finished per s")
            .description("Started and finished sagas. Both rates should match.")
            .remediation("More started than finished: sagas accumulate. Check their states.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.saga.started").rate().sum_by(by).or_zero(&order_metrics_witness()).legend_prefix("started"))
            .query(finished().rate().sum_by(by).or_zero(&order_metrics_witness()).legend_prefix("finished")),
        stacked_timeseries("Sagas finished / s by outcome")
            .description("Finished sagas by outcome.")
            .remediation("`failed` and `cancelled` release stock: compare with `released` below.")
            .unit(unit::PER_SECOND)
            .runbook("SagaFailed")
            .query(finished().rate().sum_by(["job", "saga", "outcome"]).or_zero(&order_metrics_witness())),
        timeseries("Step p95 by outcome")
            .description("95th percentile of saga step durations, by outcome.")
            .remediation("Slow with a definite outcome: products is slow. `unknown`: the step timed out and is retried.")
            .unit(unit::SECONDS)
            .limits(0.25, 1.0)
            .traces(Traces::SERVICE.slow())
            .query(step().quantile(0.95, ["job", "step", "outcome"])),
        stacked_timeseries("Steps / s by outcome")
            .description("Executed saga steps by outcome.")
            .remediation("More steps than the sagas explain: steps are retried because no response arrives.")
            .unit(unit::PER_SECOND)
            .query(step().count().rate().sum_by(["job", "step", "outcome"])),
    ]
}

fn outbox() -> [Panel; 4] {
    [
        timeseries("Outbox backlog")
            .description("Unpublished outbox events, counted up to 10,000.")
            .remediation("The broker is down or its stream is full. Afterwards events are published in order, in batches of 256.")
            .unit(unit::COUNT)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.pending").now().max_by(["job"])),
        timeseries("Outbox age")
            .description("Age of the oldest unpublished event.")
            .remediation("A straight rising line: no event is published at all.")
            .limits(10.0, 60.0)
            .unit(unit::SECONDS)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.oldest").now().max_by(["job"])),
        stacked_timeseries("Events to the broker / s")
            .description("Publish attempts by outcome.")
            .remediation(
                "`unavailable`: the broker is down or full, events wait. `refused`, then `dead`: the broker rejects them, see the log.",
            )
            .unit(unit::PER_SECOND)
            .runbook("OutboxLag")
            .query(metric("palisade.outbox.published").rate().sum_by(["job", "outcome"]).or_zero(&order_metrics_witness())),
        timeseries("Dead-lettered events")
            .description("Events dead-lettered after repeated rejections by the broker.")
            .remediation("`GET /events/dead` on the admin port of orders shows the reason, `POST /events/redrive` publishes them again.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("OutboxDeadLetters")
            .query(metric("palisade.outbox.dead_lettered").now().max_by(["job"])),
    ]
    .map(|panel| panel.sized(6, 8))
}

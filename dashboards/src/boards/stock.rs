//! Stock dashboard: units, reservations, adjustments, audits.

use crate::{
    dashboard::Dashboard,
    panel::{Panel, stacked_timeseries, stat, timeseries, unit},
    query::metric,
};

pub(super) fn dashboard() -> Dashboard {
    let about = "Units in stock, their reservations and adjustments, and the audits that compare them.";
    Dashboard::new("stock", "Palisade / 09 Stock", about).row("Current status", current_status()).row("Stock", stock())
}

fn current_status() -> [Panel; 3] {
    [
        super::invariant_violations(),
        stat("Products out of stock")
            .description("Products with no available units.")
            .remediation("Buyers get 409 `insufficient_stock`: restock or delist the products.")
            .unit(unit::COUNT)
            .query(metric("palisade.stock.out_products").now().max_by([])),
        stat("Overdue holds")
            .description("Expired stock holds that are not released yet.")
            .remediation("The expiry sweeper of products is slow or stuck: see its log.")
            .unit(unit::COUNT)
            .limits(1.0, 100.0)
            .query(metric("palisade.stock.overdue_holds").now().max_by([])),
    ]
    .map(|panel| panel.sized(8, 4))
}

fn stock() -> [Panel; 4] {
    [
        stacked_timeseries("Reservations / s by outcome")
            .description("Stock reservations by outcome.")
            .remediation("`insufficient`: sold out. `refused`: arrived after its release. Many `released`: orders fail or are cancelled.")
            .unit(unit::PER_SECOND)
            .query(metric("palisade.stock.reservations").rate().sum_by(["job", "outcome"]).or_zero(&metric("palisade.stock.out_products"))),
        stacked_timeseries("Units by state")
            .description("Units of all products: available, reserved, sold.")
            .remediation("The sum changes only by restocking. `reserved` stays high: holds are not confirmed or released.")
            .unit(unit::COUNT)
            .query(metric("palisade.stock.units").now().max_by(["state"])),
        stacked_timeseries("Stock adjustments / min")
            .description("Changes of the stock recorded in the ledger, by kind.")
            .remediation(
                "`reconciled`: changed by a replica of a release without a ledger, or by something else than products. \
                    `GET /products/{id}/stock-adjustments` shows who changed a product.",
            )
            .unit(unit::PER_MINUTE)
            .query(metric("palisade.stock.adjustments").rate().sum_by(["kind"]).per_minute()),
        timeseries("Invariant violations over time")
            .description("Invariant violations found by the audits, by check.")
            .remediation("The first red sample marks the time: check deployments and restarts just before.")
            .unit(unit::COUNT)
            .limit(1.0)
            .runbook("StockInvariantViolated")
            .query(metric("palisade.invariant.violations").now().max_by(["job", "check"])),
    ]
    .map(|panel| panel.sized(6, 8))
}

//! SLO dashboard: objectives, burn rates with their alert thresholds, error budgets.

use super::time_to_settle;
use crate::{
    dashboard::Dashboard,
    panel::{Panel, Traces, stat, table, timeseries, unit},
    query::{Query, external_metric, metric},
};

const SLO: [&str; 1] = ["slo"];

pub(super) fn dashboard() -> Dashboard {
    let about = "Service level objectives: are they met, and how fast is their error budget spent?";
    Dashboard::new("slo", "Palisade / 02 SLOs", about)
        .row("Objectives", objectives())
        .row("Burn rates (1 spends the budget in exactly 30 days)", burn_rates())
        .row("Error budgets", budgets())
        .row("Orders: 99 % settled within 30 s", orders())
}

fn recorded(name: &str) -> Query {
    external_metric(name).now().max_by(SLO)
}

/// Burn rate: error ratio divided by the allowed one.
fn burn_rate(errors: &str) -> Query {
    recorded(errors) / recorded("slo:objective:ratio").complement()
}

fn objectives() -> [Panel; 2] {
    [
        table("Objectives")
            .description(
                "Each objective, its bad requests in the last hour and in 30 days, and the budget that is left. Click a row for runbooks.",
            )
            .remediation("Less than half of the budget left: prioritise reliability. Below 0 the objective is missed.")
            .unit(unit::SHARE)
            .limits(2.0, 3.0)
            .columns(&["objective", "bad in 1 h", "bad in 30 d", "budget left"])
            .runbook("ErrorBudgetBurnFast")
            .runbook("OrdersSettleLate")
            .runbook("ServiceErrorBudgetBurnFast")
            .runbook("ErrorBudgetBurnSlow")
            .query(recorded("slo:objective:ratio"))
            .query(recorded("slo:errors:ratio_rate1h"))
            .query(recorded("slo:errors:ratio_rate30d"))
            .query(recorded("slo:error_budget:remaining_ratio"))
            .sized(14, 8),
        stat("30-day budget left")
            .description("Share of the error budget of 30 days that is left, at the request rate so far. -100 % is the end of the scale.")
            .remediation("The burn rates below show whether it still falls.")
            .share_of_good(0.5, 0.0)
            .runbook("ErrorBudgetBurnSlow")
            .query(recorded("slo:error_budget:remaining_ratio"))
            .sized(10, 8),
    ]
}

fn burn_rates() -> [Panel; 3] {
    [
        timeseries("Burn rate, 1 h")
            .description("Page of the gateway and of settled orders above 14.4 (red line), if the last 5 minutes burn as fast: the budget is gone in two days.")
            .remediation("An emergency. The overview shows the failing hop.")
            .unit(unit::NUMBER)
            .limits(1.0, 14.4)
            .runbook("ErrorBudgetBurnFast")
            .link_to_dashboard("overview")
            .query(burn_rate("slo:errors:ratio_rate1h")),
        timeseries("Burn rate, 6 h")
            .description("Page of the gateway and of settled orders above 6 (red line), if the last 30 minutes burn as fast: the budget is gone in five days.")
            .remediation("Find the failing hop on the overview, before the budget is gone.")
            .unit(unit::NUMBER)
            .limits(1.0, 6.0)
            .runbook("ErrorBudgetBurnFast")
            .link_to_dashboard("overview")
            .query(burn_rate("slo:errors:ratio_rate6h")),
        timeseries("Burn rate, 3 d")
            .description("Ticket above 1 (red line), if the last 6 hours burn as fast: the budget does not last 30 days.")
            .remediation("A steady share of failures: find its route or method, and its reason.")
            .unit(unit::NUMBER)
            .limits(0.5, 1.0)
            .runbook("ErrorBudgetBurnSlow")
            .link_to_dashboard("gateway")
            .query(burn_rate("slo:errors:ratio_rate3d")),
    ]
}

fn budgets() -> [Panel; 3] {
    [
        timeseries("Budget left over time")
            .description("Share of the 30-day error budget that is left. A step down is an incident.")
            .remediation("Compare a step with deployments (blue) and alerts (red).")
            .share_of_good(0.5, 0.0)
            .runbook("ErrorBudgetBurnSlow")
            .query(recorded("slo:error_budget:remaining_ratio")),
        timeseries("Bad requests / min")
            .description("Requests that spend the budget, by objective.")
            .remediation("The overview shows the hop, its error panels link to traces.")
            .unit(unit::PER_MINUTE)
            .runbook("ErrorBudgetBurnFast")
            .query(recorded("slo:bad_requests:rate5m").per_minute()),
        timeseries("Requests / s by objective")
            .description("Requests that count. A timeout that the caller chose does not.")
            .remediation("Few requests make coarse ratios: one failure of ten is 10 %.")
            .unit(unit::REQUESTS)
            .query(recorded("slo:requests:rate5m")),
    ]
}

fn orders() -> [Panel; 3] {
    let finished = || metric("palisade.saga.duration").count().rate().sum_by([]);
    let in_time = metric("palisade.saga.late").rate().sum_by([]).share_of(&finished()).complement();
    [
        timeseries("Settled within 30 s")
            .description("Share of the orders that are confirmed, failed or cancelled within 30 s of their acceptance. The objective is 99 %.")
            .remediation("Products is slow or down: sagas wait for it, no order is lost. An unfinished order counts when it ends, see the oldest saga.")
            .share_of_good(0.99, 0.95)
            .runbook("OrdersSettleLate")
            .runbook("SagaStuck")
            .link_to_dashboard("orders")
            .query(in_time.legend_prefix("settled in time")),
        time_to_settle(),
        timeseries("Late orders / min")
            .description("Orders that took longer than 30 s to settle.")
            .remediation("`GET /saga/stuck` on the admin port of orders lists orders that are not settled yet.")
            .unit(unit::PER_MINUTE)
            .runbook("OrdersSettleLate")
            .runbook("SagaStuck")
            .traces(Traces::SERVICE.slow())
            .query(metric("palisade.saga.late").rate().sum_by(["job"]).per_minute()),
    ]
}

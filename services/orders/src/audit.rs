//! Audit of the invariants of all orders, and comparison with the reservations of products, both
//! ways: a reservation that owns units belongs to an order that needs them, and a confirmed order
//! has its reservation, with the same lines. Without the second check, a restored backup of
//! products would sell units twice unnoticed.

mod mismatch;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use palisade_middleware::{
    auth::Principal,
    clock::Clock,
    context::{self, Context},
    job,
    jobs::Run,
};
use palisade_store::logged_violations;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use self::mismatch::Mismatch;
use crate::{
    config, metrics,
    order::{self, OrderId, Quantities},
    products::{OpenReservation, Products, previous_uuid},
    store::{ConfirmedOrder, Error, SagaStatus, Store},
};

/// Maximum time for which a due order may remain unclaimed. The audit reports it afterwards.
const OVERDUE_AFTER: Duration = Duration::from_mins(1);
/// The same while products rejects calls, when the worker claims only some orders per poll.
const OVERDUE_AFTER_WHILE_LIMITED: Duration = Duration::from_hours(1);
/// Maximum number of reservations per page. Products ends a page earlier if it has many bytes.
const RESERVATIONS_PER_PAGE: u32 = 500;
/// Maximum number of confirmed orders per query.
const ORDERS_PER_PAGE: u32 = 1_000;
/// Number of mismatches after which the comparison ends: the first ones show the problem.
const MAX_MISMATCHES: usize = 100;
const COMPARISON_TIMEOUT: Duration = Duration::from_secs(30);

/// Audit of one store.
#[derive(Clone)]
pub struct Audit {
    /// Order store.
    pub store: Arc<dyn Store>,
    /// Products client, for the list of open reservations.
    pub products: Products,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
}

/// Result of an audit.
pub(crate) struct Report {
    /// Violations within the order store.
    violations: Vec<String>,
    counts: HashMap<&'static str, u64>,
    /// Comparison with products, or the reason why it was not possible.
    comparison: Result<Comparison, String>,
}

/// Result of the comparison with the reservations of products.
#[derive(Default)]
struct Comparison {
    reservations: u64,
    confirmed_orders: u64,
    mismatches: Vec<Mismatch>,
}

/// Audits the invariants periodically until the stop and sets the metrics. Audits on request do not
/// set them, because their scope may differ.
pub(crate) async fn run_loop(audit: Audit, config: config::Audit, Run { heartbeat, stop }: Run) -> job::Result {
    let (audit, heartbeat) = (&audit, &heartbeat);
    let check = || async move {
        match audit.check(config.lookback_hours).await {
            Ok(report) => {
                let mismatches = report.comparison.as_ref().ok().map(|comparison| comparison.mismatches.len());
                metrics::record_audit(report.violations.len(), mismatches, audit.clock.now());
                heartbeat.success();
            }
            Err(error) => {
                metrics::forget_audit();
                heartbeat.failure(&error);
            }
        }
    };
    job::run_with_duty_cycle(Duration::from_secs(config.interval_s), (heartbeat, stop), check).await;
    Ok(())
}

impl Report {
    /// Whether everything was checked.
    pub(crate) fn is_complete(&self) -> bool {
        self.comparison.is_ok()
    }

    /// Response body: `ok` is `null` if no violation was found but not everything was checked.
    pub(crate) fn body(&self) -> Value {
        let mismatches = self.comparison.iter().flat_map(|comparison| &comparison.mismatches);
        let violations: Vec<String> = self.violations.iter().cloned().chain(mismatches.map(ToString::to_string)).collect();
        let ok = match violations.is_empty() {
            true if !self.is_complete() => Value::Null,
            empty => empty.into(),
        };
        let reservations = match &self.comparison {
            Ok(done) => {
                let mismatches: Vec<Value> = done.mismatches.iter().map(Mismatch::body).collect();
                json!({ "checked": done.reservations, "confirmedOrdersChecked": done.confirmed_orders, "mismatches": mismatches })
            }
            Err(reason) => json!({ "checked": null, "reason": reason }),
        };
        let status = if self.is_complete() { "checked" } else { "not_checked" };
        json!({ "ok": ok, "status": status, "violations": violations, "orders": self.counts, "reservations": reservations })
    }
}

/// Logs the first violations, each with its order, and the number of the others, which
/// `GET /invariants` lists.
fn log_violations(violations: &[impl std::fmt::Display]) {
    let (logged, more) = logged_violations(violations);
    for violation in logged {
        tracing::error!(%violation, "invariant violated");
    }
    if more > 0 {
        tracing::error!(more, "further invariants violated");
    }
}

impl Comparison {
    fn is_full(&self) -> bool {
        self.mismatches.len() >= MAX_MISMATCHES
    }
}

impl Audit {
    /// Audits the orders of the last `hours` hours; 0 audits all orders.
    pub(crate) async fn check(&self, hours: u32) -> Result<Report, Error> {
        let now = self.clock.now();
        let since = Some(hours).filter(|hours| *hours > 0).and_then(|hours| now.checked_sub(time::Duration::hours(hours.into())));
        let audit = self.store.audit(now, self.overdue_after(), since).await?;
        let violations: Vec<String> = audit.findings.iter().map(ToString::to_string).collect();
        let deadline = Instant::now() + COMPARISON_TIMEOUT;
        let context = Context::background().on_behalf_of(Arc::new(Principal::on_behalf_of("orders"))).with_deadline(deadline);
        let comparison = context::scope(context, self.compare_reservations(since)).await;
        if let Err(reason) = &comparison {
            tracing::warn!(reason, "orders not compared with reservations");
        }
        log_violations(&violations);
        log_violations(comparison.as_ref().map_or(&[][..], |comparison| &comparison.mismatches[..]));
        let counts = audit.counts.iter().map(|(status, count)| (status.as_str(), *count)).collect();
        Ok(Report { violations, counts, comparison })
    }

    fn overdue_after(&self) -> Duration {
        if self.products.breaker_state().admits_all() { OVERDUE_AFTER } else { OVERDUE_AFTER_WHILE_LIMITED }
    }

    /// Lists the open reservations of products page by page; a reservation has the id of its order.
    /// Both lists are sorted by id.
    async fn compare_reservations(&self, since: Option<OffsetDateTime>) -> Result<Comparison, String> {
        let mut comparison = Comparison::default();
        let mut after = since.map_or(Uuid::nil(), |since| previous_uuid(order::min_uuid_at(since)));
        loop {
            let page = self.open_reservations(after, RESERVATIONS_PER_PAGE).await?;
            let open: BTreeMap<Uuid, Quantities> = page.into_iter().map(|open| (open.id, open.quantities)).collect();
            let ids: Vec<Uuid> = open.keys().copied().collect();
            self.check_reservations(&ids, &mut comparison).await?;
            let until = ids.last().copied();
            // Read the orders after the reservations: a reservation exists before its order is
            // confirmed.
            self.check_confirmed_orders((after, until), &open, &mut comparison).await?;
            match until {
                Some(last) if !comparison.is_full() => after = last,
                _ => return Ok(comparison),
            }
        }
    }

    /// Checks that each reservation that owns units belongs to an order that needs them.
    async fn check_reservations(&self, page: &[Uuid], comparison: &mut Comparison) -> Result<(), String> {
        let ids: Vec<OrderId> = page.iter().copied().map(OrderId::from).collect();
        // Read the orders after their reservations: an order exists before its reservation, and
        // only then changes its status.
        let statuses = self.saga_statuses(ids).await?;
        let statuses: HashMap<Uuid, SagaStatus> = statuses.into_iter().map(|status| (status.order_id.as_uuid(), status)).collect();
        for id in page {
            comparison.reservations += 1;
            // A change between the two reads is not a violation: on a second read both stores
            // agree.
            if Mismatch::of_reservation(*id, statuses.get(id)).is_some() && !comparison.is_full() && self.is_open(*id).await? {
                let status = self.saga_statuses(vec![OrderId::from(*id)]).await?;
                comparison.mismatches.extend(Mismatch::of_reservation(*id, status.first()));
            }
        }
        Ok(())
    }

    /// Checks that each confirmed order of this range of ids is among the `open` reservations, with
    /// the same lines.
    async fn check_confirmed_orders(
        &self,
        (mut after, until): (Uuid, Option<Uuid>),
        open: &BTreeMap<Uuid, Quantities>,
        comparison: &mut Comparison,
    ) -> Result<(), String> {
        loop {
            let orders = self.confirmed_orders(after, until, ORDERS_PER_PAGE).await?;
            comparison.confirmed_orders += orders.len() as u64;
            for order in &orders {
                let agrees = open.get(&order.order_id.as_uuid()).is_some_and(|quantities| agrees(order, quantities));
                if agrees {
                    continue;
                }
                if comparison.is_full() {
                    return Ok(());
                }
                comparison.mismatches.extend(self.recheck_confirmed(order.order_id.as_uuid()).await?);
            }
            match orders.last() {
                Some(last) if orders.len() >= ORDERS_PER_PAGE as usize => after = last.order_id.as_uuid(),
                _ => return Ok(()),
            }
        }
    }

    /// Compares a confirmed order again. The reservation may have been made or revised meanwhile,
    /// or the order cancelled: what contradicts between two equal states of the order is a
    /// mismatch.
    async fn recheck_confirmed(&self, id: Uuid) -> Result<Option<Mismatch>, String> {
        let before = self.confirmed_orders(previous_uuid(id), Some(id), 1).await?.pop();
        let open = self.products.open_reservation(id).await.map_err(|status| unavailable(&status))?;
        let after = self.confirmed_orders(previous_uuid(id), Some(id), 1).await?.pop();
        Ok(match (before, after, open) {
            (Some(before), Some(after), None) if before == after => Some(Mismatch::without_reservation(id)),
            (Some(before), Some(after), Some(open)) if before == after && !agrees(&after, &open.quantities) => Some(Mismatch::of_lines(id)),
            _ => None,
        })
    }

    async fn confirmed_orders(&self, after: Uuid, until: Option<Uuid>, limit: u32) -> Result<Vec<ConfirmedOrder>, String> {
        self.store.confirmed_orders(after, until, limit).await.map_err(|error| error.to_string())
    }

    async fn is_open(&self, id: Uuid) -> Result<bool, String> {
        Ok(self.products.open_reservation(id).await.map_err(|status| unavailable(&status))?.is_some())
    }

    async fn open_reservations(&self, after: Uuid, limit: u32) -> Result<Vec<OpenReservation>, String> {
        self.products.open_reservations(Some(after), limit).await.map_err(|status| unavailable(&status))
    }

    async fn saga_statuses(&self, ids: Vec<OrderId>) -> Result<Vec<SagaStatus>, String> {
        self.store.saga_statuses(ids).await.map_err(|error| error.to_string())
    }
}

/// Whether a confirmed order and its reservation have the same lines, or may differ because of a
/// pending revision.
fn agrees(order: &ConfirmedOrder, reserved: &Quantities) -> bool {
    order.is_being_revised || order.quantities == *reserved
}

fn unavailable(status: &tonic::Status) -> String {
    format!("products returned {:?}", status.code())
}

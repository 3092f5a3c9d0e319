//! Maintenance: migration, readiness, statistics and invariant audit.

use std::{fmt, time::Duration};

use palisade_middleware::clock;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    database::{Error, corrupt, readable},
    instrumented::instrumented_role,
    retention::settled,
};
use crate::order::{self, OrderId, Quantities, Status};

instrumented_role! {
    /// Maintenance of the database and checks of its data.
    pub trait Maintenance {
        /// Migrates the schema. Idempotent, and safe with several replicas at once. Takes as long
        /// as the migrations need.
        async fn migrate(&self) -> Result<(), Error> = untimed_call("prepare", "");

        /// Ends the leases of a process that no longer runs, if this process is the only one that
        /// can use the database. Returns the number of orders that are due now.
        async fn take_over(&self, now: OffsetDateTime) -> Result<u64, Error> = call("take_over", "orders");

        /// Checks whether the database can be read and, every few seconds, written. Returns the
        /// time of its server, if it has one.
        async fn ping(&self) -> Result<Option<OffsetDateTime>, Error> = call("ping", "");

        /// Audits the invariants of all orders created at `since` or later, or of all orders
        /// without `since`. In addition, an order of any age violates an invariant if it has been
        /// due for longer than `overdue_after`.
        async fn audit(&self, now: OffsetDateTime, overdue_after: Duration, since: Option<OffsetDateTime>) -> Result<Audit, Error>
            = long_call("audit", "orders");

        /// Returns the saga statuses of these orders, including removed ones. Ids without an order
        /// are left out.
        async fn saga_statuses(&self, ids: Vec<OrderId>) -> Result<Vec<SagaStatus>, Error> = call("standings", "orders");

        /// Returns up to `limit` confirmed orders with ids after `after` and up to `until`, sorted
        /// by id.
        async fn confirmed_orders(&self, after: Uuid, until: Option<Uuid>, limit: u32) -> Result<Vec<ConfirmedOrder>, Error>
            = call("confirmed_orders", "orders");

        /// Returns the amount of unfinished work, for gauges.
        async fn stats(&self, now: OffsetDateTime) -> Result<Stats, Error> = call("stats", "orders");

        /// Returns the number of rows past their retention: keys that have expired at `now`, and
        /// events and settled orders before `past`.
        async fn overdue(&self, now: OffsetDateTime, past: PastRetention) -> Result<Overdue, Error> = call("overdue", "outbox");
    }
}

/// Result of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Number of audited orders per status, including removed ones. Statuses without orders are
    /// left out.
    pub counts: Vec<(Status, u64)>,
    /// Violations, at most [`Audit::MAX_FINDINGS`] per invariant.
    pub findings: Vec<Finding>,
}

/// Violation of an invariant by an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The order.
    pub order_id: OrderId,
    /// The violated invariant.
    pub invariant: Invariant,
}

/// Invariants of every order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// A due order is claimed in time.
    NotOverdue,
    /// An order with work left has a due time.
    DueTimeSet,
    /// The history has exactly one row per status so far.
    HistoryComplete,
    /// The last history row has the order's status.
    HistoryMatchesStatus,
    /// Every transition in the history is legal and starts from the previous status.
    TransitionsLegal,
    /// Every status change has an event in the outbox, unless the event was published and pruned.
    EventWritten,
    /// The order has lines, either all or none of them are priced, and the total is their sum.
    TotalExact,
}

/// Saga status of an order, for comparison with its reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SagaStatus {
    /// The order.
    pub order_id: OrderId,
    /// Status of the order. `None` if it is unreadable.
    pub status: Option<Status>,
    /// Whether products must still release the reservation.
    pub release_pending: bool,
    /// Whether products must still fulfil the reservation.
    pub fulfilment_pending: bool,
}

/// Confirmed order, for comparison with its reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfirmedOrder {
    /// The order.
    pub order_id: OrderId,
    /// Version of the order.
    pub version: i64,
    /// Whether a revision is pending: the reservation may have its lines already.
    pub is_being_revised: bool,
    /// Quantities of the lines by product.
    pub quantities: Quantities,
}

/// Amount of unfinished work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Unfinished orders per status. Statuses without orders are left out.
    pub unfinished: Vec<(Status, u64)>,
    /// Time since the last change of the longest unchanged unfinished order, or zero.
    pub oldest_unfinished: Duration,
    /// Number of unpublished events, counted up to 10,000.
    pub unpublished: u64,
    /// Age of the oldest unpublished event, or zero.
    pub oldest_unpublished: Duration,
    /// Number of dead-lettered events, counted up to 10,000.
    pub dead: u64,
    /// Number of orders in quarantine, counted up to 10,000.
    pub quarantined: u64,
}

/// Rows past their retention, each counted up to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// Expired idempotency keys.
    pub keys: u64,
    /// Published events.
    pub events: u64,
    /// Settled orders.
    pub orders: u64,
}

/// Times before which rows are past their retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastRetention {
    /// Publication of events.
    pub events: OffsetDateTime,
    /// Last change of FAILED orders.
    pub failed: OffsetDateTime,
    /// Last change of COMPLETED and CANCELLED orders.
    pub ended: OffsetDateTime,
}

impl Audit {
    /// Maximum number of findings per invariant: the first ones show the problem, further ones only
    /// its extent.
    pub const MAX_FINDINGS: i64 = 100;
}

impl Invariant {
    /// Stable slug.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotOverdue => "taken_up",
            Self::DueTimeSet => "not_forgotten",
            Self::HistoryComplete => "history_complete",
            Self::HistoryMatchesStatus => "history_agrees",
            Self::TransitionsLegal => "moves_legal",
            Self::EventWritten => "event_written",
            Self::TotalExact => "total_exact",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {}: {}", self.order_id, self.invariant.as_str())
    }
}

/// Selects the orders that are due since `$1`, at most `$2`.
pub(super) const OVERDUE: &str = "
    SELECT id FROM (
        SELECT id, due_at FROM orders WHERE due_at <= $1 UNION ALL SELECT order_id, due_at FROM fulfilments WHERE due_at <= $1
    ) due ORDER BY due_at LIMIT $2";

/// For each other invariant, selects at most `$1` orders with ids from `$2` on that violate it. The
/// SQL is valid for both databases. Ids sort by time, so that a time range is a range of primary
/// keys.
pub(super) const CHECKS: [(Invariant, &str); 6] = [
    (
        Invariant::DueTimeSet,
        "SELECT id FROM orders WHERE id >= $2 AND due_at IS NULL AND (release_pending OR revision IS NOT NULL OR status IN ('PENDING', 'PRODUCT_RESERVED')) LIMIT $1",
    ),
    (
        Invariant::HistoryComplete,
        "SELECT o.id FROM orders o LEFT JOIN order_history h ON h.order_id = o.id
         WHERE o.id >= $2 GROUP BY o.id, o.version HAVING count(h.version) <> o.version LIMIT $1",
    ),
    (
        Invariant::HistoryMatchesStatus,
        "SELECT o.id FROM orders o JOIN order_history h ON h.order_id = o.id AND h.version = o.version
         WHERE o.id >= $2 AND (h.to_status <> o.status OR h.reason IS DISTINCT FROM o.failure_reason) LIMIT $1",
    ),
    (
        Invariant::TransitionsLegal,
        "SELECT order_id FROM (
             SELECT order_id, from_status, to_status, lag(to_status) OVER (PARTITION BY order_id ORDER BY version) AS previous
             FROM order_history WHERE order_id >= $2
         ) h
         WHERE from_status IS DISTINCT FROM previous
            OR (from_status IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM legal_moves m WHERE m.from_status = h.from_status AND m.to_status = h.to_status))
         LIMIT $1",
    ),
    (
        Invariant::EventWritten,
        "SELECT h.order_id FROM order_history h LEFT JOIN outbox x ON x.order_id = h.order_id AND x.version = h.version
         WHERE h.order_id >= $2 AND x.order_id IS NULL AND h.at >= coalesce((SELECT pruned_before FROM outbox_horizon), h.at) LIMIT $1",
    ),
    (
        Invariant::TotalExact,
        "SELECT o.id FROM orders o LEFT JOIN order_lines l ON l.order_id = o.id
         WHERE o.id >= $2 GROUP BY o.id, o.total_minor
         HAVING o.total_minor IS DISTINCT FROM sum(CAST(l.unit_price_minor AS NUMERIC) * l.quantity)
             OR count(l.name) NOT IN (0, count(*)) OR count(l.position) = 0 LIMIT $1",
    ),
];

/// Counts the orders per status, with ids from `$1` on.
pub(super) const COUNTS: &str = "SELECT status, count(*) FROM orders WHERE id >= $1 GROUP BY status ORDER BY status";

/// Selects the lines of up to `$3` confirmed orders with ids from above `$1` to `$2`.
pub(super) const CONFIRMED_ORDERS: &str = "
    SELECT o.id, o.version, o.revision IS NOT NULL, l.product_id, l.quantity
    FROM (SELECT * FROM orders WHERE status = 'CONFIRMED' AND id > $1 AND id <= $2 ORDER BY id LIMIT $3) o
    LEFT JOIN order_lines l ON l.order_id = o.id ORDER BY o.id";

/// Row of [`CONFIRMED_ORDERS`].
pub(super) type ConfirmedRow = (Uuid, i64, bool, Option<Uuid>, Option<i64>);

/// Groups the rows of [`CONFIRMED_ORDERS`] by order.
pub(super) fn confirmed_orders(rows: &[ConfirmedRow]) -> Vec<ConfirmedOrder> {
    let order = |rows: &[ConfirmedRow]| {
        let (id, version, is_being_revised, ..) = rows[0];
        let quantities = rows.iter().filter_map(|(.., product, quantity)| product.zip(*quantity)).collect();
        ConfirmedOrder { order_id: id.into(), version, is_being_revised, quantities }
    };
    rows.chunk_by(|one, other| one.0 == other.0).map(order).collect()
}

/// Returns the lower bound of the audited ids.
pub(super) fn first_id(since: Option<OffsetDateTime>) -> Uuid {
    since.map_or_else(Uuid::nil, order::min_uuid_at)
}

/// Placeholders for the status in the rows of dead-lettered events and of orders in quarantine.
const DEAD: &str = "DEAD";
const QUARANTINED: &str = "QUARANTINED";

/// Settled orders with this status that have not changed since this time.
macro_rules! overdue_orders {
    ($status:literal, $before:literal) => {
        concat!("SELECT 1 FROM orders WHERE ", settled!(), " AND status = '", $status, "' AND updated_at <= ", $before)
    };
}

/// Counts the expired keys at `$1`, the events that were published before `$2`, and the settled
/// orders before `$3` (FAILED) or `$4`.
pub(super) const OVERDUE_ROWS: &str = concat!(
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM idempotency_keys WHERE expires_at <= $1 LIMIT 10000) keys), \
     (SELECT count(*) FROM (SELECT 1 FROM outbox WHERE published_at < $2 AND created_at < $2 LIMIT 10000) events), \
     (SELECT count(*) FROM (SELECT * FROM (",
    overdue_orders!("FAILED", "$3"),
    " UNION ALL ",
    overdue_orders!("COMPLETED", "$4"),
    " UNION ALL ",
    overdue_orders!("CANCELLED", "$4"),
    ") settled LIMIT 10000) orders)"
);

/// Selects one row per status of unfinished orders, one of completed orders to fulfil, one row
/// without a status for the outbox, one for dead-lettered events, and one for the quarantine. The
/// outbox is counted up to a limit because its backlog is unbounded.
pub(super) const STATS: &str = "
    SELECT status, count(*), min(updated_at) FROM orders WHERE due_at IS NOT NULL GROUP BY status
    UNION ALL
    SELECT status, count(*), min(updated_at) FROM fulfilments JOIN orders ON orders.id = order_id GROUP BY status
    UNION ALL
    SELECT NULL, count(*), min(created_at)
    FROM (SELECT created_at FROM outbox WHERE published_at IS NULL AND dead_at IS NULL ORDER BY position LIMIT 10000) backlog
    UNION ALL
    SELECT 'DEAD', count(*), NULL FROM (SELECT 1 FROM outbox WHERE dead_at IS NOT NULL LIMIT 10000) dead
    UNION ALL
    SELECT 'QUARANTINED', count(*), NULL FROM (SELECT 1 FROM quarantined_orders LIMIT 10000) quarantined";

impl Stats {
    /// Builds the statistics from the rows of [`STATS`].
    pub(super) fn from_rows(rows: Vec<(Option<String>, i64, Option<OffsetDateTime>)>, now: OffsetDateTime) -> Result<Self, Error> {
        let age = |oldest: Option<OffsetDateTime>| oldest.map_or(Duration::ZERO, |at| clock::age(at, now));
        let mut stats = Self {
            unfinished: Vec::new(),
            oldest_unfinished: Duration::ZERO,
            unpublished: 0,
            oldest_unpublished: Duration::ZERO,
            dead: 0,
            quarantined: 0,
        };
        for (status, rows, oldest) in rows {
            let rows = u64::try_from(rows).map_err(corrupt)?;
            if status.as_deref() == Some(DEAD) {
                stats.dead = rows;
            } else if status.as_deref() == Some(QUARANTINED) {
                stats.quarantined = rows;
            } else if let Some(status) = status {
                // An unknown status is an unreadable order, which is counted in the quarantine.
                stats.unfinished.extend(status.parse().ok().map(|status| (status, rows)));
                stats.oldest_unfinished = stats.oldest_unfinished.max(age(oldest));
            } else {
                stats.unpublished = rows;
                stats.oldest_unpublished = age(oldest);
            }
        }
        Ok(stats)
    }
}

/// Parses the rows of [`COUNTS`]. Leaves out unknown statuses, whose orders are unreadable.
pub(super) fn counts(rows: Vec<(String, i64)>) -> Result<Vec<(Status, u64)>, Error> {
    let known = rows.into_iter().filter_map(|(status, orders)| Some((status.parse().ok()?, orders)));
    known.map(|(status, orders)| Ok((status, u64::try_from(orders).map_err(corrupt)?))).collect()
}

/// Converts the ids of violating orders to findings.
pub(super) fn findings(invariant: Invariant, orders: Vec<Uuid>) -> impl Iterator<Item = Finding> {
    orders.into_iter().map(move |id| Finding { order_id: id.into(), invariant })
}

/// Parses rows of id, status, `release_pending` and whether a fulfilment is pending.
pub(super) fn saga_statuses(rows: Vec<(Uuid, String, bool, bool)>) -> Vec<SagaStatus> {
    let parse = |(id, status, release_pending, fulfilment_pending): (Uuid, String, bool, bool)| {
        let status = readable("orders", status.parse().map_err(corrupt));
        SagaStatus { order_id: id.into(), status, release_pending, fulfilment_pending }
    };
    rows.into_iter().map(parse).collect()
}

//! What the store can tell of itself: work left, orders that do not move, and invariants that do not hold.

use std::{fmt, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, sqlx_error::corrupt};
use crate::order::{self, OrderId, Status};

/// How much is stored, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How many of the orders that were looked at have each status, removed ones too; a status that no order has is absent.
    pub counts: Vec<(Status, u64)>,
    /// Broken invariants, at most [`Audit::MOST_FINDINGS`] of each invariant; empty when all is well.
    pub findings: Vec<Finding>,
}

/// An invariant that does not hold for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Which order.
    pub order_id: OrderId,
    /// What should be true of it.
    pub invariant: Invariant,
}

/// What is true of every order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// A worker takes it up soon after it is due.
    NotOverdue,
    /// It has a due time as long as it has work left.
    DueTimeSet,
    /// Its history has exactly one row for each status it has had.
    HistoryComplete,
    /// Its history ends with its status.
    HistoryMatchesStatus,
    /// Each move in its history is legal, and starts where the one before ended.
    TransitionsLegal,
    /// Each move has an event in the outbox, unless that was published and pruned.
    EventWritten,
    /// It has lines, all of them with a price or none, and its total is their sum.
    TotalExact,
}

/// How an order stands towards its reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SagaStatus {
    /// Which order.
    pub order_id: OrderId,
    /// Its status.
    pub status: Status,
    /// Whether products has yet to be told to give its stock back.
    pub release_pending: bool,
}

/// How much work is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Orders with work left by status; a status that none has is absent.
    pub unfinished: Vec<(Status, u64)>,
    /// For how long the longest unchanged of them has been so; zero without any.
    pub oldest_unfinished: Duration,
    /// Events that are not published; counted up to 10,000.
    pub unpublished: u64,
    /// Age of the oldest of them; zero without any.
    pub oldest_unpublished: Duration,
    /// Events that were put aside; counted up to 10,000.
    pub dead: u64,
}

/// An order that does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckOrder {
    /// Which order.
    pub order_id: OrderId,
    /// How it stands.
    pub status: Status,
    /// Whether its release is queued.
    pub release_pending: bool,
    /// How many workers took it up since its last change.
    pub attempts: u32,
    /// What stopped the last of them.
    pub last_error: Option<String>,
    /// Since when it is so.
    pub updated_at: OffsetDateTime,
    /// When it is tried next.
    pub due_at: OffsetDateTime,
}

impl Audit {
    /// Most findings of one invariant in an answer: the first tell what is wrong, the rest how often.
    pub const MAX_FINDINGS: i64 = 100;
}

impl Invariant {
    /// A stable slug.
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

/// Orders that are due since `$1`, at most `$2`.
pub(super) const OVERDUE: &str = "SELECT id FROM orders WHERE due_at <= $1 ORDER BY due_at LIMIT $2";

/// For each other invariant the orders, from the id `$2` on, that break it, at most `$1`. Both databases understand them. Ids are in the
/// order of time: a part of them is a range of primary keys.
pub(super) const CHECKS: [(Invariant, &str); 6] = [
    (
        Invariant::DueTimeSet,
        "SELECT id FROM orders WHERE id >= $2 AND due_at IS NULL AND (release_pending OR status IN ('PENDING', 'PRODUCT_RESERVED')) LIMIT $1",
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

/// How many orders have each status, from the id `$1` on.
pub(super) const COUNTS: &str = "SELECT status, count(*) FROM orders WHERE id >= $1 GROUP BY status ORDER BY status";

/// The first id to look at.
pub(super) fn first_id(since: Option<OffsetDateTime>) -> Uuid {
    since.map_or_else(Uuid::nil, order::min_uuid_at)
}

/// What stands in the place of a status in the row for dead events.
const DEAD: &str = "DEAD";

/// A row for each status of unfinished orders, one without a status for the outbox, and one for its dead events.
/// How far the outbox is counted has an end, because a backlog has none.
pub(super) const STATS: &str = "
    SELECT status, count(*), min(updated_at) FROM orders WHERE due_at IS NOT NULL GROUP BY status
    UNION ALL
    SELECT NULL, count(*), min(created_at)
    FROM (SELECT created_at FROM outbox WHERE published_at IS NULL AND dead_at IS NULL ORDER BY position LIMIT 10000) backlog
    UNION ALL
    SELECT 'DEAD', count(*), NULL FROM (SELECT 1 FROM outbox WHERE dead_at IS NOT NULL LIMIT 10000) dead";

impl Stats {
    /// From the rows of [`STATS`].
    pub(super) fn from_rows(rows: Vec<(Option<String>, i64, Option<OffsetDateTime>)>, now: OffsetDateTime) -> Result<Self, Error> {
        let age = |oldest: Option<OffsetDateTime>| oldest.and_then(|at| (now - at).try_into().ok()).unwrap_or(Duration::ZERO);
        let mut stats =
            Self { unfinished: Vec::new(), oldest_unfinished: Duration::ZERO, unpublished: 0, oldest_unpublished: Duration::ZERO, dead: 0 };
        for (status, rows, oldest) in rows {
            let rows = u64::try_from(rows).map_err(corrupt)?;
            if status.as_deref() == Some(DEAD) {
                stats.dead = rows;
            } else if let Some(status) = status {
                stats.unfinished.push((status.parse().map_err(corrupt)?, rows));
                stats.oldest_unfinished = stats.oldest_unfinished.max(age(oldest));
            } else {
                stats.unpublished = rows;
                stats.oldest_unpublished = age(oldest);
            }
        }
        Ok(stats)
    }
}

/// From the rows of [`COUNTS`].
pub(super) fn counts(rows: Vec<(String, i64)>) -> Result<Vec<(Status, u64)>, Error> {
    rows.into_iter().map(|(status, orders)| Ok((status.parse().map_err(corrupt)?, u64::try_from(orders).map_err(corrupt)?))).collect()
}

/// The orders that break an invariant.
pub(super) fn findings(invariant: Invariant, orders: Vec<Uuid>) -> impl Iterator<Item = Finding> {
    orders.into_iter().map(move |id| Finding { order_id: id.into(), invariant })
}

/// From rows of id, status and `release_pending`.
pub(super) fn saga_statuses(rows: Vec<(Uuid, String, bool)>) -> Result<Vec<SagaStatus>, Error> {
    let parse = |(id, status, release_pending): (Uuid, String, bool)| {
        Ok(SagaStatus { order_id: id.into(), status: status.parse().map_err(corrupt)?, release_pending })
    };
    rows.into_iter().map(parse).collect()
}

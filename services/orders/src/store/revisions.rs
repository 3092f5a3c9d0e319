//! Revisions as both databases store them: JSON of the lines, and the rows of a request and an end.

use palisade_middleware::preconditions::VersionPreconditions;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    database::{Error, corrupt},
    instrumented::ChangeResult,
    orders::Claimed,
    outbox::NewEvent,
};
use crate::{
    order::{Line, MaxTotal, Order, ProductSnapshot, Revision},
    saga::{RevisionEnd, RevisionRequest, request_revision},
};

/// Statements that both databases understand. Requests the revision `$2` of order `$1`.
pub(super) const REQUEST: &str = "
    UPDATE orders SET revision = $2, version = $3, updated_at = $4, due_at = $5, fence = fence + 1, attempts = 1, last_error = NULL
    WHERE id = $1 RETURNING fence, saga_deadline, trace_parent";
/// Ends the revision of order `$1`.
pub(super) const END: &str = "
    UPDATE orders SET revision = NULL, total_minor = $2, version = $3, updated_at = $4, due_at = NULL, last_error = NULL WHERE id = $1";
pub(super) const INSERT_HISTORY: &str = "
    INSERT INTO order_history
        (order_id, version, from_status, to_status, revision, replaced_lines, actor, actor_subject, actor_service, at)
    VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8, $9)";
pub(super) const INSERT_EVENT: &str = "
    INSERT INTO outbox (event_id, order_id, version, kind, payload, trace_parent, created_at)
    SELECT $1, id, $3, $4, $5, trace_parent, $6 FROM orders WHERE id = $2";

/// Result of [`OrderStore::request_revision`](super::OrderStore::request_revision).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestRevisionResult {
    /// The revision is pending, and the order is leased to the caller.
    Requested(Claimed),
    /// The same revision is pending already.
    Pending(Order),
    /// The order already has these lines.
    Unchanged(Order),
    /// Another revision is pending.
    InProgress,
    /// The status of the order forbids a revision.
    Illegal(Order),
    /// The order was revised too often.
    Exhausted,
    /// The version of the order does not satisfy the preconditions.
    VersionMismatch,
    /// The order does not exist.
    NotFound,
}

/// Step of a revision: a row of the history and an event.
pub(super) struct RevisionStep {
    /// Content of the column `revision`.
    pub(super) name: &'static str,
    /// Lines that the step replaced.
    pub(super) replaced_lines: Option<String>,
    pub(super) event: NewEvent,
}

#[derive(Serialize, Deserialize)]
struct StoredRevision {
    lines: Vec<StoredLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_total_minor: Option<i64>,
    /// Microseconds since 1970.
    updated_before: i64,
}

#[derive(Serialize, Deserialize)]
struct StoredLine {
    product_id: Uuid,
    quantity: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit_price_minor: Option<i64>,
}

impl RevisionStep {
    /// Returns the step that requests the revision of `order`.
    pub(super) fn requested(order: &Order) -> Result<Self, Error> {
        Ok(Self { name: "revision_requested", replaced_lines: None, event: NewEvent::new(order, "revision_requested", order.updated_at)? })
    }

    /// Returns the step from `before` to `after`, at `now`.
    pub(super) fn ended(end: &RevisionEnd, before: &Order, after: &Order, now: OffsetDateTime) -> Result<Self, Error> {
        Ok(match end {
            RevisionEnd::Revised(_) => {
                let replaced_lines = Some(encode_lines(&before.lines)?);
                Self { name: "revised", replaced_lines, event: NewEvent::new(after, "revised", now)? }
            }
            RevisionEnd::Refused(reason) => {
                Self { name: reason.as_str(), replaced_lines: None, event: NewEvent::new(after, "revision_refused", now)? }
            }
        })
    }
}

/// Decides a request. Returns the order after it, or the result without a change.
pub(super) fn decide(
    order: Order,
    wanted: (Vec<Line>, Option<MaxTotal>),
    preconditions: &VersionPreconditions,
    now: OffsetDateTime,
) -> Result<Order, Box<RequestRevisionResult>> {
    Err(Box::new(match request_revision(&order, wanted, preconditions, now) {
        RevisionRequest::Allowed(requested) => return Ok(*requested),
        RevisionRequest::Unchanged => RequestRevisionResult::Unchanged(order),
        RevisionRequest::Pending => RequestRevisionResult::Pending(order),
        RevisionRequest::InProgress => RequestRevisionResult::InProgress,
        RevisionRequest::Illegal => RequestRevisionResult::Illegal(order),
        RevisionRequest::Exhausted => RequestRevisionResult::Exhausted,
        RevisionRequest::VersionMismatch => RequestRevisionResult::VersionMismatch,
    }))
}

/// Encodes a pending revision for the column `revision` of an order.
pub(super) fn encode(revision: &Revision) -> Result<String, Error> {
    let micros = i64::try_from(revision.updated_before.unix_timestamp_nanos() / 1_000).map_err(corrupt)?;
    let stored = StoredRevision {
        lines: revision.lines.iter().map(StoredLine::from).collect(),
        max_total_minor: revision.max_total.map(MaxTotal::minor),
        updated_before: micros,
    };
    serde_json::to_string(&stored).map_err(corrupt)
}

pub(super) fn decode(text: Option<&str>) -> Result<Option<Revision>, Error> {
    let Some(text) = text else { return Ok(None) };
    let stored: StoredRevision = serde_json::from_str(text).map_err(corrupt)?;
    let updated_before = OffsetDateTime::from_unix_timestamp_nanos(i128::from(stored.updated_before) * 1_000).map_err(corrupt)?;
    let max_total = stored.max_total_minor.map(MaxTotal::new).transpose().map_err(|violation| corrupt(violation.message))?;
    Ok(Some(Revision { lines: stored.lines.into_iter().map(Line::from).collect(), max_total, updated_before }))
}

/// Decodes the column `replaced_lines` of the history.
pub(super) fn decode_lines(text: &str) -> Result<Vec<Line>, Error> {
    let stored: Vec<StoredLine> = serde_json::from_str(text).map_err(corrupt)?;
    Ok(stored.into_iter().map(Line::from).collect())
}

fn encode_lines(lines: &[Line]) -> Result<String, Error> {
    serde_json::to_string(&lines.iter().map(StoredLine::from).collect::<Vec<_>>()).map_err(corrupt)
}

impl From<&Line> for StoredLine {
    fn from(line: &Line) -> Self {
        let snapshot = line.snapshot.as_ref();
        Self {
            product_id: line.product_id,
            quantity: line.quantity,
            name: snapshot.map(|snapshot| snapshot.name.clone()),
            unit_price_minor: snapshot.map(|snapshot| snapshot.unit_price_minor),
        }
    }
}

impl From<StoredLine> for Line {
    fn from(stored: StoredLine) -> Self {
        let snapshot = stored.name.zip(stored.unit_price_minor).map(|(name, unit_price_minor)| ProductSnapshot { name, unit_price_minor });
        Self { product_id: stored.product_id, quantity: stored.quantity, snapshot }
    }
}

impl ChangeResult for RequestRevisionResult {
    fn changed_order(&self) -> Option<&Order> {
        if let Self::Requested(claimed) = self { Some(&claimed.saga.order) } else { None }
    }
}

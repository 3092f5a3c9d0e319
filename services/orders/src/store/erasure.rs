//! Erasure of the data of a subject: its idempotency keys are deleted, and a pseudonym replaces it
//! everywhere else.

use palisade_middleware::auth::Subject;
use serde_json::json;
use uuid::Uuid;

use super::{
    database::{Error, corrupt},
    instrumented::instrumented_role,
    retention::settled,
};
use crate::order::{OrderId, Status};

instrumented_role! {
    /// Erasure of the data of a subject.
    pub trait ErasureStore {
        /// Counts the orders of `subject` that are not settled, per status. Settled: in a terminal
        /// status, with no release or fulfilment pending.
        async fn unsettled_orders(&self, subject: Subject) -> Result<Vec<(Status, u64)>, Error> = long_call("unsettled_orders", "orders");

        /// Deletes up to `limit` idempotency keys of `subject`. If these are all, also up to
        /// `limit` stored responses that contain its orders under the keys of other subjects.
        async fn erase_keys(&self, subject: Subject, limit: u32) -> Result<ErasedKeys, Error> = long_call("erase_keys", "idempotency_keys");

        /// Replaces `subject` by `pseudonym` in up to `limit` orders after the id `after`, with
        /// their history and events. Leaves out the owner of orders that are not settled.
        async fn erase_orders(&self, subject: Subject, pseudonym: Subject, after: OrderId, limit: u32) -> Result<ErasedOrders, Error>
            = call("erase_orders", "orders");
    }
}

/// Result of [`ErasureStore::erase_keys`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasedKeys {
    /// Deleted keys.
    pub keys: u64,
    /// Deleted responses of other keys.
    pub responses: u64,
}

/// Result of [`ErasureStore::erase_orders`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErasedOrders {
    /// Last examined order. `None` if there was none.
    pub last: Option<OrderId>,
    /// Orders whose owner was replaced.
    pub orders: u64,
    /// Orders whose remover was replaced.
    pub removals: u64,
    /// History rows whose actor was replaced.
    pub history: u64,
    /// Events whose payload was changed.
    pub events: u64,
}

/// Texts of an event's payload that name a subject, as [`super::outbox::NewEvent`] writes them.
pub(super) fn payload_members(subject: &Subject) -> String {
    let member = json!({ "userId": subject.as_str() }).to_string();
    // Without the braces.
    member[1..member.len() - 1].to_owned()
}

/// Parses rows of status and count.
pub(super) fn counts(rows: Vec<(String, i64)>) -> Result<Vec<(Status, u64)>, Error> {
    rows.into_iter().map(|(status, orders)| Ok((status.parse().map_err(corrupt)?, orders.unsigned_abs()))).collect()
}

/// Returns the last id of a batch as the result of an erasure.
pub(super) fn last(id: Option<Uuid>) -> Option<OrderId> {
    id.map(OrderId::from)
}

/// Counts the orders of `$1` that are not settled. The two parts use the indexes by owner.
pub(super) const UNSETTLED: &str = concat!(
    "
    SELECT status, count(*) FROM (
        SELECT id, status, due_at FROM orders WHERE user_id = $1 AND deleted_at IS NULL
        UNION ALL
        SELECT id, status, due_at FROM orders WHERE user_id = $1 AND deleted_at IS NOT NULL
    ) own
    WHERE NOT (",
    settled!(),
    ") OR EXISTS (SELECT 1 FROM fulfilments WHERE order_id = id)
    GROUP BY status ORDER BY status"
);

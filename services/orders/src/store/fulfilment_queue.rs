//! Fulfilment queue: completed orders whose reservation products must still fulfil.
//!
//! The database fills the queue in the step that completes an order. A claim moves the due time,
//! which keeps other workers away for a while. There is no fence: the call to products has the same
//! result however often it is made.

use std::time::Duration;

use palisade_middleware::auth::Subject;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    database::{Error, corrupt},
    instrumented::instrumented_role,
};
use crate::order::OrderId;

instrumented_role! {
    /// Queue of the completed orders to fulfil.
    pub trait FulfilmentQueue {
        /// Claims up to `limit` due fulfilments, longest due first, for `lease`. Puts unreadable
        /// orders into quarantine.
        async fn claim_fulfilments(&self, now: OffsetDateTime, lease: Duration, limit: u32) -> Result<Vec<DueFulfilment>, Error>
            = call("claim_due", "fulfilments");

        /// Removes the order from the queue. Repeated calls have no effect.
        async fn fulfilment_done(&self, id: OrderId) -> Result<(), Error> = call("done", "fulfilments");

        /// Schedules the next attempt for `due_at` and stores the error.
        async fn postpone_fulfilment(&self, id: OrderId, due_at: OffsetDateTime, last_error: String) -> Result<(), Error>
            = call("postpone", "fulfilments");
    }
}

/// Order to fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueFulfilment {
    /// The order, and its reservation.
    pub order_id: OrderId,
    /// Owner of the order.
    pub user_id: Subject,
    /// Number of claims, including this one.
    pub attempts: u32,
}

/// Row of a claim: the order, its owner, and the number of claims.
pub(super) type ClaimedRow = (Uuid, String, i64);

impl DueFulfilment {
    pub(super) fn decode((id, user_id, attempts): ClaimedRow) -> Result<Self, Error> {
        let user_id = Subject::parse(&user_id).map_err(corrupt)?;
        Ok(Self { order_id: id.into(), user_id, attempts: attempts.try_into().map_err(corrupt)? })
    }
}

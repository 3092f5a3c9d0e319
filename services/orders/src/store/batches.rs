//! Writes that both databases put into batches, and what follows from their results.

use palisade_middleware::{
    group_commit::{BatchWriter, GroupCommit},
    preconditions::VersionPreconditions,
};
use time::OffsetDateTime;

use super::{
    change::Change,
    database::{BatchFailure, Error},
    orders::{Claimed, Create, OrderStore, SetStatusResult, StoredResponse},
    saga_queue::TransitionResult,
};
use crate::{
    order::{Actor, OrderId, Status},
    saga::{self, StatusChange, Transition},
};

/// An order to accept, and the time of its acceptance.
pub(super) struct NewRow {
    pub(super) create: Create,
    pub(super) now: OffsetDateTime,
}

/// A change, and the response to store with it.
pub(super) struct ChangeRow {
    pub(super) change: Change,
    pub(super) response: Option<StoredResponse>,
}

/// As [`OrderStore::set_status`], by the batches of `changes` to `store`.
pub(super) async fn set_status<W: BatchWriter<Item = ChangeRow, Output = bool, Error = BatchFailure>>(
    store: &impl OrderStore,
    changes: &GroupCommit<W>,
    id: OrderId,
    to: Status,
    by: Actor,
    preconditions: VersionPreconditions,
    now: OffsetDateTime,
) -> Result<SetStatusResult, Error> {
    // Terminates: after each lost race the order has a later status, and the number of statuses is
    // bounded.
    loop {
        let Some(order) = store.find(id).await? else { return Ok(SetStatusResult::NotFound) };
        match saga::request_conditional_change(&order, to, by.role, &preconditions) {
            StatusChange::VersionMismatch => return Ok(SetStatusResult::VersionMismatch),
            StatusChange::Unchanged => return Ok(SetStatusResult::Unchanged(order)),
            StatusChange::Illegal(allowed) => return Ok(SetStatusResult::Illegal { order, allowed }),
            StatusChange::Allowed(transition) => {
                let (from, change) = (order.status, Change::by_user(order, &transition, by.clone(), now)?);
                let after = change.order.clone();
                if changes.write(ChangeRow { change, response: None }).await? {
                    return Ok(SetStatusResult::Changed { from, order: after });
                }
            }
        }
    }
}

/// As [`SagaQueue::transition`](super::saga_queue::SagaQueue::transition), by the batches of
/// `changes` to `store`.
pub(super) async fn transition<W: BatchWriter<Item = ChangeRow, Output = bool, Error = BatchFailure>>(
    store: &impl OrderStore,
    changes: &GroupCommit<W>,
    claimed: &Claimed,
    transitions: &[Transition],
    response: Option<StoredResponse>,
    now: OffsetDateTime,
) -> Result<TransitionResult, Error> {
    let (change, after) = Change::by_saga(claimed, transitions, now)?;
    let id = change.order.id;
    if changes.write(ChangeRow { change, response }).await? {
        return Ok(TransitionResult::Applied(after));
    }
    store.find(id).await?.map(TransitionResult::Fenced).ok_or_else(|| Error::Corrupt(format!("order {id} does not exist")))
}

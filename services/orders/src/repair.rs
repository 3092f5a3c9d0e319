//! Repair of a reservation that contradicts its order, for operators: after a backup of one store
//! was restored, the stores contradict each other.

use std::{sync::Arc, time::Duration};

use palisade_middleware::{
    auth::Principal,
    context::{self, Context},
};
use palisade_proto::reasons::reservation::REVISED;
use tokio::time::Instant;

use crate::{
    fulfilment::FulfilOutcome,
    metrics,
    order::{Order, OrderId, Status},
    products::{Products, RestoreOutcome},
    saga::{ReleaseOutcome, ReviseOutcome},
    store::{Error, SagaStatus, Store},
};

/// Maximum duration of the calls to products.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Repair of reservations.
#[derive(Clone)]
pub struct Repair {
    /// Order store.
    pub store: Arc<dyn Store>,
    /// Products client.
    pub products: Products,
}

/// Result of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepairOutcome {
    /// Order and reservation already agree, or the saga makes them agree.
    Consistent,
    /// The reservation is released: its order does not exist, or does not need it.
    Released,
    /// The units of a confirmed order are reserved again.
    Reserved,
    /// The reservation of a completed order is fulfilled.
    Fulfilled,
    /// Products has a final reason against the reservation of a confirmed order. The slug names it.
    Refused(&'static str),
    /// The outcome is unknown. A repetition shows it.
    Unknown,
}

impl RepairOutcome {
    /// Stable name, without the reason.
    pub(crate) fn as_str(self) -> &'static str {
        let [consistent, released, reserved, fulfilled, refused, unknown] = metrics::REPAIRS;
        match self {
            Self::Consistent => consistent,
            Self::Released => released,
            Self::Reserved => reserved,
            Self::Fulfilled => fulfilled,
            Self::Refused(_) => refused,
            Self::Unknown => unknown,
        }
    }
}

impl Repair {
    /// Makes the reservation `id` agree with its order. Returns the status of the order, if it
    /// exists, and the outcome, or `None` if there is neither an order nor an open reservation.
    ///
    /// May run beside the saga: a release that comes later ends the reservation, and one that came
    /// first prevents it.
    pub(crate) async fn repair(&self, id: OrderId) -> Result<Option<(Option<Status>, RepairOutcome)>, Error> {
        let principal = Arc::new(Principal::on_behalf_of("orders"));
        let context = Context::background().on_behalf_of(principal).with_deadline(Instant::now() + TIMEOUT);
        let result = context::scope(context, self.compare_and_repair(id)).await?;
        if let Some((_, outcome)) = &result {
            metrics::record_repair(outcome.as_str());
        }
        Ok(result)
    }

    async fn compare_and_repair(&self, id: OrderId) -> Result<Option<(Option<Status>, RepairOutcome)>, Error> {
        // The reservation first: an order exists before its reservation.
        let Ok(open) = self.products.open_reservation(id.as_uuid()).await else {
            let saga = self.saga_status(id).await?;
            return Ok(Some((saga.and_then(|saga| saga.status), RepairOutcome::Unknown)));
        };
        let is_open = open.is_some();
        let Some(saga) = self.saga_status(id).await? else {
            return Ok(if is_open { Some((None, self.release(id).await)) } else { None });
        };
        let Some(status) = saga.status else { return Ok(Some((None, RepairOutcome::Unknown))) };
        let outcome = match status {
            _ if saga.release_pending || saga.fulfilment_pending => RepairOutcome::Consistent,
            Status::Failed | Status::Cancelled if is_open => self.release(id).await,
            Status::Completed if is_open => self.fulfil(id).await,
            Status::Confirmed => match (open, self.store.find(id).await?) {
                (_, None) => RepairOutcome::Unknown,
                (None, Some(order)) => self.reserve(&order).await,
                (Some(open), Some(order)) if order.revision.is_none() && open.quantities != order.quantities() => {
                    self.realign(&order).await
                }
                _ => RepairOutcome::Consistent,
            },
            _ => RepairOutcome::Consistent,
        };
        Ok(Some((Some(status), outcome)))
    }

    async fn saga_status(&self, id: OrderId) -> Result<Option<SagaStatus>, Error> {
        Ok(self.store.saga_statuses(vec![id]).await?.pop())
    }

    async fn release(&self, id: OrderId) -> RepairOutcome {
        match self.products.release(id).await {
            ReleaseOutcome::Done => RepairOutcome::Released,
            ReleaseOutcome::Unknown { .. } => RepairOutcome::Unknown,
        }
    }

    async fn fulfil(&self, id: OrderId) -> RepairOutcome {
        match self.products.fulfil(id).await {
            FulfilOutcome::Done => RepairOutcome::Fulfilled,
            FulfilOutcome::Missing | FulfilOutcome::Unknown { .. } => RepairOutcome::Unknown,
        }
    }

    async fn reserve(&self, order: &Order) -> RepairOutcome {
        match self.products.restore(order).await {
            RestoreOutcome::Confirmed => RepairOutcome::Reserved,
            RestoreOutcome::Refused(reason) => RepairOutcome::Refused(reason),
            RestoreOutcome::Unknown => RepairOutcome::Unknown,
        }
    }

    /// Takes and gives back the units by which the reservation differs from the order.
    async fn realign(&self, order: &Order) -> RepairOutcome {
        match self.products.realign(order).await {
            ReviseOutcome::Revised(_) => RepairOutcome::Reserved,
            ReviseOutcome::Refused(reason) => RepairOutcome::Refused(reason.as_str()),
            ReviseOutcome::Lost => RepairOutcome::Refused(REVISED.slug),
            ReviseOutcome::Unknown { .. } => RepairOutcome::Unknown,
        }
    }
}

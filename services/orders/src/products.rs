//! Client of the products service for the saga. Its results distinguish a definite failure from an
//! unknown outcome.

use std::{sync::LazyLock, time::Duration};

use palisade_middleware::{
    circuit_breaker::{BreakerHandle, State},
    client::Client,
    log_budget::LogBudget,
    naming,
    rejection::{self, Reason},
};
use palisade_proto::{
    products::v1::{
        ConfirmReservationRequest, FulfilReservationRequest, ListReservationsRequest, ReleaseReservationRequest, Reservation,
        ReservationLine, ReservationState, ReserveStockRequest, ReviseReservationRequest, products_service_client::ProductsServiceClient,
    },
    reasons::{self, reservation},
};
use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    fulfilment::FulfilOutcome,
    order::{FailureReason, HeldLine, Line, MaxTotal, Order, OrderId, ProductSnapshot, Quantities},
    saga::{ConfirmOutcome, ReleaseOutcome, ReserveOutcome, ReviseOutcome, Saga},
};

/// While products is down, each attempt of each order fails.
static BUDGET: LazyLock<LogBudget> = LazyLock::new(LogBudget::default);

/// Reasons of a confirmation that can never succeed.
static LOST: [&Reason; 4] = [&reservation::RELEASED, &reasons::RESERVATION_EXPIRED, &reservation::REFUSED, &reservation::UNKNOWN];

/// Reasons of a reservation that can never be made.
static FINAL: [&Reason; 5] = [
    &reservation::RELEASED,
    &reasons::RESERVATION_EXPIRED,
    &reasons::INSUFFICIENT_STOCK,
    &reasons::UNKNOWN_PRODUCT,
    &reasons::PRODUCT_INACTIVE,
];

/// Outcome of [`Products::restore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// The units are reserved for good.
    Confirmed,
    /// The units are not reserved, for this reason, which is final: its slug.
    Refused(&'static str),
    /// No response, or one without a reason.
    Unknown,
}

/// Reservation that owns units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReservation {
    /// Id of the order.
    pub id: Uuid,
    /// Units that it owns.
    pub quantities: Quantities,
}

/// Reasons of a revision that can never succeed.
static NOT_REVISABLE: [&Reason; 3] = [&reservation::NOT_CONFIRMED, &reservation::REVISED, &reservation::UNKNOWN];

/// Calls products on behalf of the current context's principal.
#[derive(Debug, Clone)]
pub struct Products {
    client: ProductsServiceClient<Client>,
    breaker: BreakerHandle,
}

impl Products {
    /// Creates the client over `client`.
    pub fn new(client: Client) -> Self {
        let breaker = client.breaker().clone();
        Self { client: ProductsServiceClient::new(client), breaker }
    }

    /// Returns the state of the circuit breaker.
    pub fn breaker_state(&self) -> State {
        self.breaker.state()
    }

    /// Reserves the stock of an order, up to its maximum total, and confirms the reservation.
    pub async fn reserve(&self, saga: &Saga) -> ReserveOutcome {
        let request = ReserveStockRequest { max_total_minor: saga.max_total.map(MaxTotal::minor), ..reserve_request(&saga.order) };
        match self.client.clone().reserve_stock(request).await {
            Ok(response) => {
                let reservation = response.into_inner();
                // A replica of the previous release only holds the units.
                let is_confirmed = reservation.state() == ReservationState::Confirmed;
                match held_lines(reservation) {
                    Some(lines) if is_confirmed => ReserveOutcome::Confirmed(lines),
                    Some(lines) => ReserveOutcome::Held(lines),
                    None => ReserveOutcome::Unknown { retry_after: None },
                }
            }
            Err(status) => match reason(&status) {
                Some(it) if it == &reservation::RELEASED => ReserveOutcome::Released,
                Some(it) if it == &reasons::RESERVATION_EXPIRED => ReserveOutcome::Expired,
                it => match it.and_then(refusal) {
                    Some(reason) => ReserveOutcome::Rejected(reason),
                    None => ReserveOutcome::Unknown { retry_after: log_unknown_outcome("ReserveStock", saga.order.id, &status) },
                },
            },
        }
    }

    /// Revises the reservation of `order` to the lines of its pending revision.
    pub async fn revise(&self, order: &Order) -> ReviseOutcome {
        let revision = order.revision.as_ref();
        let lines = revision.map(|revision| requested(&revision.lines)).unwrap_or_default();
        let max_total = revision.and_then(|revision| revision.max_total);
        self.revise_to(order, lines, max_total).await
    }

    /// Makes the reservation of a confirmed order have the lines of the order, whose version
    /// numbers the revision.
    pub async fn realign(&self, order: &Order) -> ReviseOutcome {
        self.revise_to(order, requested(&order.lines), None).await
    }

    async fn revise_to(&self, order: &Order, lines: Vec<ReservationLine>, max_total: Option<MaxTotal>) -> ReviseOutcome {
        let request = ReviseReservationRequest {
            reservation_id: order.id.to_string(),
            revision: order.version,
            lines,
            max_total_minor: max_total.map(MaxTotal::minor),
        };
        match self.client.clone().revise_reservation(request).await {
            Ok(response) => match held_lines(response.into_inner()) {
                Some(lines) => ReviseOutcome::Revised(lines),
                None => ReviseOutcome::Unknown { retry_after: None },
            },
            Err(status) => match reason(&status) {
                Some(it) if NOT_REVISABLE.contains(&it) => {
                    tracing::error!(order_id = %order.id, reason = it.slug, "order is confirmed, but products has no reservation to revise");
                    ReviseOutcome::Lost
                }
                it => match it.and_then(refusal) {
                    Some(reason) => ReviseOutcome::Refused(reason),
                    // Includes a replica of the previous release, which does not know the method.
                    None => ReviseOutcome::Unknown { retry_after: log_unknown_outcome("ReviseReservation", order.id, &status) },
                },
            },
        }
    }

    /// Reserves the stock of a confirmed order again, whose reservation products has lost.
    pub async fn restore(&self, order: &Order) -> RestoreOutcome {
        match self.client.clone().reserve_stock(reserve_request(order)).await {
            Ok(response) => match response.into_inner().state() {
                ReservationState::Confirmed => RestoreOutcome::Confirmed,
                ReservationState::Fulfilled => RestoreOutcome::Refused("reservation_fulfilled"),
                // A replica of the previous release only holds the units.
                _ => match self.confirm(order.id).await {
                    ConfirmOutcome::Confirmed => RestoreOutcome::Confirmed,
                    ConfirmOutcome::Lost | ConfirmOutcome::Unknown { .. } => RestoreOutcome::Unknown,
                },
            },
            Err(status) => {
                if let Some(reason) = reason(&status).filter(|reason| FINAL.contains(reason)) {
                    RestoreOutcome::Refused(reason.slug)
                } else {
                    log_unknown_outcome("ReserveStock", order.id, &status);
                    RestoreOutcome::Unknown
                }
            }
        }
    }

    /// Confirms a reservation.
    pub async fn confirm(&self, id: OrderId) -> ConfirmOutcome {
        match self.client.clone().confirm_reservation(ConfirmReservationRequest { reservation_id: id.to_string() }).await {
            Ok(_) => ConfirmOutcome::Confirmed,
            Err(status) => match reason(&status) {
                Some(it) if LOST.contains(&it) => ConfirmOutcome::Lost,
                _ => ConfirmOutcome::Unknown { retry_after: log_unknown_outcome("ConfirmReservation", id, &status) },
            },
        }
    }

    /// Releases a reservation, or prevents it if it was not made yet (tombstone).
    pub async fn release(&self, id: OrderId) -> ReleaseOutcome {
        match self.client.clone().release_reservation(ReleaseReservationRequest { reservation_id: id.to_string() }).await {
            Ok(_) => ReleaseOutcome::Done,
            Err(status) => ReleaseOutcome::Unknown { retry_after: log_unknown_outcome("ReleaseReservation", id, &status) },
        }
    }

    /// Fulfils the reservation of a completed order.
    pub async fn fulfil(&self, id: OrderId) -> FulfilOutcome {
        match self.client.clone().fulfil_reservation(FulfilReservationRequest { reservation_id: id.to_string() }).await {
            Ok(_) => FulfilOutcome::Done,
            Err(status) => match reason(&status) {
                Some(it) if [&reservation::NOT_CONFIRMED, &reservation::UNKNOWN].contains(&it) => FulfilOutcome::Missing,
                // Includes a replica of the previous release, which does not know the method.
                _ => FulfilOutcome::Unknown { retry_after: log_unknown_outcome("FulfilReservation", id, &status) },
            },
        }
    }

    /// Returns one page of the reservations that still own units, sorted by id.
    pub async fn open_reservations(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<OpenReservation>, Status> {
        let request = ListReservationsRequest { after_id: after.map(|id| id.to_string()).unwrap_or_default(), limit };
        let page = self.client.clone().list_reservations(request).await?.into_inner();
        let open = |reservation: Reservation| {
            let quantities = reservation.lines.iter().filter_map(|line| Some((Uuid::try_parse(&line.product_id).ok()?, line.quantity)));
            Some(OpenReservation { id: Uuid::try_parse(&reservation.reservation_id).ok()?, quantities: quantities.collect() })
        };
        Ok(page.items.into_iter().filter_map(open).collect())
    }

    /// Returns the reservation if it owns units.
    pub async fn open_reservation(&self, id: Uuid) -> Result<Option<OpenReservation>, Status> {
        Ok(self.open_reservations(Some(previous_uuid(id)), 1).await?.pop().filter(|open| open.id == id))
    }
}

/// Returns the preceding UUID. Lists start after a given id, so that this includes `id` itself.
pub(crate) fn previous_uuid(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_sub(1))
}

fn reserve_request(order: &Order) -> ReserveStockRequest {
    ReserveStockRequest { reservation_id: order.id.to_string(), lines: requested(&order.lines), confirm: true, max_total_minor: None }
}

/// Lines of a request: products and quantities.
fn requested(lines: &[Line]) -> Vec<ReservationLine> {
    let line =
        |line: &Line| ReservationLine { product_id: line.product_id.to_string(), quantity: line.quantity, ..ReservationLine::default() };
    lines.iter().map(line).collect()
}

/// Returns the failure of an order whose lines products refused for `reason`.
fn refusal(reason: &'static Reason) -> Option<FailureReason> {
    match reason {
        it if it == &reasons::INSUFFICIENT_STOCK => Some(FailureReason::InsufficientStock),
        it if it == &reasons::UNKNOWN_PRODUCT => Some(FailureReason::UnknownProduct),
        it if it == &reasons::PRODUCT_INACTIVE => Some(FailureReason::ProductInactive),
        it if it == &reasons::PRICE_CHANGED => Some(FailureReason::PriceChanged),
        _ => None,
    }
}

fn held_lines(reservation: Reservation) -> Option<Vec<HeldLine>> {
    let lines = reservation.lines.into_iter().map(|line| {
        let product_id = Uuid::try_parse(&line.product_id).ok()?;
        Some(HeldLine {
            product_id,
            quantity: line.quantity,
            snapshot: ProductSnapshot { name: line.name, unit_price_minor: line.unit_price_minor },
        })
    });
    lines.collect()
}

/// Returns the reason of an error, if products itself returned it.
fn reason(status: &Status) -> Option<&'static Reason> {
    let info = status.get_details_error_info().filter(|info| info.domain == naming::current().error_domain)?;
    reasons::find(&info.reason).or_else(|| reservation::find(&info.reason))
}

/// Logs an unknown outcome and returns the retry delay that products requested.
fn log_unknown_outcome(call: &'static str, order: OrderId, status: &Status) -> Option<Duration> {
    if let Some(left_out) = BUDGET.admit(call) {
        let (cause, left_out) = (rejection::causes(status), (left_out > 0).then_some(left_out));
        tracing::warn!(call, order_id = %order, %cause, left_out, "products call failed, outcome unknown, will be retried");
    }
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

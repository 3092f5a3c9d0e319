//! `/orders/{id}/history`: every change of an order, with its actor.

use axum::{extract::State, response::Response};
use palisade_middleware::rejection::Rejection;
use palisade_proto::orders::v1::{self as proto, FindHistoryRequest};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Status;
use crate::{
    extract::{Id, Preconditions},
    problem,
    text::non_empty,
    timestamp,
    upstreams::Upstreams,
};

/// History of an order, oldest change first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderHistory {
    #[schema(min_items = 1, max_items = 1001)]
    items: Vec<OrderChange>,
}

/// One change of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderChange {
    /// Version of the order after the change. A deletion keeps the version.
    #[schema(example = 1, minimum = 1)]
    version: i64,
    /// Status before the change; `null` for the creation.
    #[schema(required = true)]
    from: Option<Status>,
    to: Status,
    /// Reason of the failure, `removed` for a deletion, `revision_requested` and `revised` for a
    /// revision, or the reason of its refusal; `null` for none.
    #[schema(required = true, example = "insufficient_stock")]
    reason: Option<String>,
    actor: Actor,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    time: String,
}

/// Actor of a change. Changes by earlier releases have an incomplete actor.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Actor {
    /// Role of the actor; `null` if it is unknown.
    #[schema(required = true)]
    role: Option<Role>,
    /// User that the change was made for; `null` for the saga, or if it is unknown.
    #[schema(required = true, example = "alice")]
    subject: Option<String>,
    /// Service that made the change; `null` for a user that called directly, or if it is unknown.
    #[schema(required = true, example = "gateway")]
    service: Option<String>,
}

/// Role of an actor: the automatic processing, the user that owns the order, or an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Saga,
    Owner,
    Admin,
}

/// Get the history of an order
///
/// Every change with its reason, its actor and its time, oldest first. The order of another user is
/// reported as `not_found`. With the scope `orders:admin`, a deleted order has a history, too.
#[utoipa::path(get, path = "/orders/{id}/history", operation_id = "findOrderHistory", tag = "orders",
    security(("bearer" = ["orders:read"]), ("bearer" = ["orders:admin"])),
    params(("id" = String, Path, format = Uuid, description = "Id of the order")),
    responses((status = 200, body = OrderHistory, description = "The changes of the order")))]
pub(crate) async fn history(
    State(Upstreams { mut orders, .. }): State<Upstreams>,
    Id(id): Id,
    preconditions: Preconditions,
) -> Result<Response, Rejection> {
    let history = orders.find_history(FindHistoryRequest { id: id.to_string() }).await.map_err(problem::rejection)?.into_inner();
    let items = history.items.into_iter().map(OrderChange::try_from).collect::<Result<_, _>>()?;
    preconditions.unstored(OrderHistory { items })
}

impl TryFrom<proto::OrderChange> for OrderChange {
    type Error = Rejection;

    fn try_from(change: proto::OrderChange) -> Result<Self, Rejection> {
        let from = Some(change.from()).filter(|from| *from != proto::OrderStatus::Unspecified);
        Ok(Self {
            version: change.version,
            from: from.map(Status::from_proto).transpose()?,
            to: Status::from_proto(change.to())?,
            reason: non_empty(change.reason),
            actor: Actor {
                role: Role::parse(&change.actor_role),
                subject: non_empty(change.actor_subject),
                service: non_empty(change.actor_service),
            },
            time: timestamp::to_rfc3339(change.at)?,
        })
    }
}

impl Role {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "saga" => Some(Self::Saga),
            "owner" => Some(Self::Owner),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

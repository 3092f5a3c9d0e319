//! JSON representation of revisions.

use palisade_middleware::rejection::{Rejection, Violation};
use palisade_proto::{orders::v1 as proto, preconditions::v1::Preconditions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{NewOrderItem, items_into_proto, products};
use crate::{
    extract::{Object, non_null},
    timestamp,
};

/// A requested revision of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingRevision {
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<RequestedItem>,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    requested_at: String,
}

/// One line of a requested revision.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestedItem {
    #[schema(format = Uuid)]
    product_id: String,
    #[schema(example = 2, minimum = 1, maximum = 1_000_000)]
    quantity: i64,
}

/// The items of an order after a revision. Unknown fields are rejected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct OrderRevision {
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = Vec<NewOrderItem>, required = true, min_items = 1, max_items = 100)]
    items: Option<Vec<Object<NewOrderItem>>>,
}

impl TryFrom<proto::Revision> for PendingRevision {
    type Error = Rejection;

    fn try_from(revision: proto::Revision) -> Result<Self, Rejection> {
        let items = revision.items.into_iter().map(|item| RequestedItem { product_id: item.product_id, quantity: item.quantity });
        Ok(Self { items: items.collect(), requested_at: timestamp::to_rfc3339(revision.requested_at)? })
    }
}

impl OrderRevision {
    /// Returns the products of the items. Items without a valid id are left out.
    pub(in crate::orders) fn products(&self) -> Vec<Uuid> {
        products(self.items.as_deref())
    }

    /// Converts the revision of the order `id` for the service and returns the missing fields as
    /// violations.
    pub(in crate::orders) fn into_proto(
        self,
        id: Uuid,
        preconditions: Option<Preconditions>,
    ) -> (proto::ReviseOrderRequest, Vec<Violation>) {
        let (items, violations) = items_into_proto(self.items);
        (proto::ReviseOrderRequest { id: id.to_string(), items, preconditions }, violations)
    }
}

//! JSON representation of revisions.

use palisade_middleware::rejection::{Rejection, Violation};
use palisade_proto::{orders::v1 as proto, preconditions::v1::Preconditions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{NewOrderItem, items_into_proto, max_total_into_proto, products};
use crate::{
    extract::{Object, non_null},
    money::NumberText,
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
    /// Maximum total that you accept, a plain decimal number with at most 2 decimals and no
    /// exponent. The revision is refused with `price_changed` if its total is higher.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 9_999_999_999.99, multiple_of = 0.01, example = 49.8)]
    max_total: Option<NumberText>,
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
        let (items, mut violations) = items_into_proto(self.items);
        let max_total_minor = max_total_into_proto(self.max_total, &mut violations);
        (proto::ReviseOrderRequest { id: id.to_string(), items, max_total_minor, preconditions }, violations)
    }
}

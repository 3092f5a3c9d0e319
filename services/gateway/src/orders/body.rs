//! JSON representation of orders.

use palisade_middleware::rejection::{Rejection, Violation};
use palisade_proto::orders::v1 as proto;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    extract::{Integer, Object, non_null},
    money::{Amount, NumberText},
    text::non_empty,
    timestamp,
};

mod revision;

pub(crate) use self::revision::{OrderRevision, PendingRevision};

/// Maximum total that the service rejects, minor units.
const NEVER_VALID: i64 = -1;

/// Status of an order. FAILED, COMPLETED and CANCELLED are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Status {
    Pending,
    ProductReserved,
    Confirmed,
    Failed,
    Completed,
    Cancelled,
}

impl Status {
    pub(super) fn into_proto(self) -> proto::OrderStatus {
        match self {
            Self::Pending => proto::OrderStatus::Pending,
            Self::ProductReserved => proto::OrderStatus::ProductReserved,
            Self::Confirmed => proto::OrderStatus::Confirmed,
            Self::Failed => proto::OrderStatus::Failed,
            Self::Completed => proto::OrderStatus::Completed,
            Self::Cancelled => proto::OrderStatus::Cancelled,
        }
    }

    pub(super) fn from_proto(status: proto::OrderStatus) -> Result<Self, Rejection> {
        match status {
            proto::OrderStatus::Unspecified => Err(Rejection::internal("orders returned no status")),
            proto::OrderStatus::Pending => Ok(Self::Pending),
            proto::OrderStatus::ProductReserved => Ok(Self::ProductReserved),
            proto::OrderStatus::Confirmed => Ok(Self::Confirmed),
            proto::OrderStatus::Failed => Ok(Self::Failed),
            proto::OrderStatus::Completed => Ok(Self::Completed),
            proto::OrderStatus::Cancelled => Ok(Self::Cancelled),
        }
    }
}

/// An order. Names, prices and totals are copied from the products when the stock is reserved; they
/// are `null` before.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    #[schema(format = Uuid)]
    id: String,
    #[schema(example = "alice")]
    user_id: String,
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<OrderItem>,
    /// Sum of the subtotals; `null` until the stock is reserved.
    #[schema(value_type = Option<f64>, required = true, example = 49.8)]
    total: Option<Amount>,
    status: Status,
    /// Reason of a FAILED order: `insufficient_stock`, `unknown_product`, `product_inactive`,
    /// `reservation_expired`, `products_unavailable` or `price_changed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "insufficient_stock")]
    failure_reason: Option<String>,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    created_at: String,
    #[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    updated_at: String,
    /// Pending revision of the items, whose outcome is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = PendingRevision, required = false)]
    revision: Option<PendingRevision>,
    /// Entity tag without its quotes; 0 if it is unknown.
    #[serde(skip)]
    version: i64,
    /// Time at which the order was deleted. Only `orders:admin` still sees a deleted order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime, example = "2026-01-31T12:00:00.000Z")]
    removed_at: Option<String>,
    /// User that deleted the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "alice")]
    removed_by: Option<String>,
}

/// One line of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderItem {
    #[schema(format = Uuid)]
    product_id: String,
    /// Name of the product at the time of the reservation.
    #[schema(required = true, example = "Kettle")]
    name: Option<String>,
    /// Price of one unit at the time of the reservation.
    #[schema(value_type = Option<f64>, required = true, example = 24.9)]
    unit_price: Option<Amount>,
    #[schema(example = 2, minimum = 1, maximum = 1_000_000)]
    quantity: i64,
    /// `unitPrice` × `quantity`.
    #[schema(value_type = Option<f64>, required = true, example = 49.8)]
    subtotal: Option<Amount>,
}

impl Order {
    pub(super) fn path(&self) -> String {
        format!("/orders/{}", self.id)
    }

    /// Returns the entity tag without its quotes. `None` for an order from a replica of the
    /// previous release.
    pub(super) fn tag(&self) -> Option<String> {
        (self.version > 0).then(|| self.version.to_string())
    }

    /// Returns the products of the lines.
    pub(super) fn products(&self) -> impl Iterator<Item = Uuid> {
        self.items.iter().filter_map(|item| item.product_id.parse().ok())
    }

    /// Whether the status is terminal.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.status, Status::Failed | Status::Completed | Status::Cancelled)
    }

    /// Whether the outcome of a revision is not known yet.
    pub(super) fn is_being_revised(&self) -> bool {
        self.revision.is_some()
    }

    /// Whether the saga has finished: afterwards the order changes only by further requests.
    pub(super) fn is_saga_finished(&self) -> bool {
        !matches!(self.status, Status::Pending | Status::ProductReserved)
    }
}

impl TryFrom<proto::Order> for Order {
    type Error = Rejection;

    fn try_from(order: proto::Order) -> Result<Self, Rejection> {
        let status = Status::from_proto(order.status())?;
        let items = order.items.into_iter().map(|item| OrderItem {
            product_id: item.product_id,
            name: item.name,
            unit_price: item.unit_price_minor.map(Amount),
            quantity: item.quantity,
            subtotal: item.subtotal_minor.map(Amount),
        });
        Ok(Self {
            id: order.id,
            user_id: order.user_id,
            items: items.collect(),
            total: order.total_minor.map(Amount),
            status,
            failure_reason: non_empty(order.failure_reason),
            created_at: timestamp::to_rfc3339(order.created_at)?,
            updated_at: timestamp::to_rfc3339(order.updated_at)?,
            revision: order.revision.map(PendingRevision::try_from).transpose()?,
            version: order.version,
            removed_at: order.removed_at.map(|at| timestamp::to_rfc3339(Some(at))).transpose()?,
            removed_by: non_empty(order.removed_by),
        })
    }
}

/// A new order. Unknown fields are rejected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewOrder {
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = Vec<NewOrderItem>, required = true, min_items = 1, max_items = 100)]
    items: Option<Vec<Object<NewOrderItem>>>,
    /// Owner of the order. Defaults to the caller; another user requires the scope `orders:admin`.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = String, required = false, max_length = 287, example = "alice")]
    user_id: Option<String>,
    /// Maximum total that you accept, a plain decimal number with at most 2 decimals and no
    /// exponent. The order fails with `price_changed` if its total at the reservation is higher.
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 9_999_999_999.99, multiple_of = 0.01, example = 49.8)]
    max_total: Option<NumberText>,
}

/// One line of a new order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NewOrderItem {
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = String, format = Uuid, required = true)]
    product_id: Option<String>,
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = i64, required = true, minimum = 1, maximum = 1_000_000, example = 2)]
    quantity: Option<Integer>,
}

impl NewOrder {
    /// Returns the products of the items. Items without a valid id are left out.
    pub(super) fn products(&self) -> Vec<Uuid> {
        products(self.items.as_deref())
    }

    /// Converts the order for the service and returns the missing fields as violations.
    pub(super) fn into_proto(self, idempotency_key: String) -> (proto::CreateOrderRequest, Vec<Violation>) {
        let (items, mut violations) = items_into_proto(self.items);
        let max_total_minor = max_total_into_proto(self.max_total, &mut violations);
        (proto::CreateOrderRequest { items, user_id: self.user_id.unwrap_or_default(), idempotency_key, max_total_minor }, violations)
    }
}

fn max_total_into_proto(max_total: Option<NumberText>, violations: &mut Vec<Violation>) -> Option<i64> {
    let max_total = max_total?.amount().map(|max_total| max_total.0);
    Some(max_total.unwrap_or_else(|error| {
        violations.push(Violation::new("maxTotal", error.code(), error.to_string()));
        NEVER_VALID
    }))
}

fn products(items: Option<&[Object<NewOrderItem>]>) -> Vec<Uuid> {
    let items = items.unwrap_or_default().iter().filter_map(|Object(item)| item.product_id.as_deref());
    items.filter_map(|id| id.parse().ok()).collect()
}

/// Missing fields become defaults that the service rejects, so that the error also lists the
/// violations found by the service.
fn items_into_proto(items: Option<Vec<Object<NewOrderItem>>>) -> (Vec<proto::NewOrderItem>, Vec<Violation>) {
    let mut violations = Vec::new();
    let mut required = |field: String, is_missing: bool| {
        if is_missing {
            violations.push(Violation::new(field, "required", "must be given"));
        }
    };
    required("items".to_owned(), items.is_none());
    let mut converted = Vec::new();
    for (index, Object(item)) in items.unwrap_or_default().into_iter().enumerate() {
        required(format!("items[{index}].productId"), item.product_id.is_none());
        required(format!("items[{index}].quantity"), item.quantity.is_none());
        let quantity = item.quantity.map_or(0, |quantity| quantity.0);
        converted.push(proto::NewOrderItem { product_id: item.product_id.unwrap_or_default(), quantity });
    }
    (converted, violations)
}

/// Requested status of an order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewStatus {
    #[serde(default, deserialize_with = "non_null")]
    #[schema(value_type = Status, required = true)]
    status: Option<String>,
}

impl NewStatus {
    pub(super) fn into_proto(self) -> Result<proto::OrderStatus, Rejection> {
        let Some(text) = self.status else {
            return Err(Rejection::invalid(vec![Violation::new("status", "required", "must be given")]));
        };
        let status =
            proto::OrderStatus::from_str_name(&format!("ORDER_STATUS_{text}")).filter(|status| *status != proto::OrderStatus::Unspecified);
        status.ok_or_else(|| {
            Rejection::invalid(vec![Violation::new("status", "unknown_status", "must be a status of an order, e.g. CANCELLED")])
        })
    }
}

/// One page of orders.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderPage {
    items: Vec<Order>,
    /// Cursor of the next page; `null` on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

impl TryFrom<proto::FindAllResponse> for OrderPage {
    type Error = Rejection;

    fn try_from(page: proto::FindAllResponse) -> Result<Self, Rejection> {
        let items = page.items.into_iter().map(Order::try_from).collect::<Result<_, _>>()?;
        Ok(Self { items, next_cursor: non_empty(page.next_cursor) })
    }
}

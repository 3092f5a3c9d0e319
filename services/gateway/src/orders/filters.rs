//! Query parameters of a list of orders.

use palisade_proto::orders::v1 as proto;
use serde::Deserialize;
use utoipa::IntoParams;

use super::body::Status;
use crate::{
    extract::{Limit, Uuid},
    timestamp::Timestamp,
};

/// Value of `userId` that selects the orders of all users.
const ALL_USERS: &str = "*";

/// Filters and page of a list of orders.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filters {
    /// Only orders with this status.
    #[param(inline)]
    status: Option<Status>,
    /// Only orders of this user; `*` for the orders of all users. Defaults to the caller; another
    /// user and `*` require the scope `orders:admin`.
    #[param(max_length = 287)]
    user_id: Option<String>,
    /// Only orders with a line of this product.
    #[param(value_type = Option<String>, format = Uuid)]
    product_id: Option<Uuid>,
    /// Only orders that were created at this time (RFC 3339) or later.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    created_from: Option<Timestamp>,
    /// Only orders that were created before this time (RFC 3339). Must not be before `createdFrom`.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-02-01T00:00:00+01:00")]
    created_to: Option<Timestamp>,
    /// Maximum number of orders on the page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: Option<Limit>,
    /// `nextCursor` of the previous page. The filters must be the same.
    cursor: Option<String>,
}

impl From<Filters> for proto::FindAllRequest {
    fn from(filters: Filters) -> Self {
        let all_users = filters.user_id.as_deref() == Some(ALL_USERS);
        Self {
            status: filters.status.map_or(proto::OrderStatus::Unspecified, Status::into_proto).into(),
            user_id: filters.user_id.filter(|_| !all_users).unwrap_or_default(),
            limit: filters.limit.map_or(0, |limit| limit.0),
            cursor: filters.cursor.unwrap_or_default(),
            product_id: filters.product_id.map_or_else(String::new, |id| id.0.to_string()),
            created_from: filters.created_from.map(Timestamp::into_proto),
            created_to: filters.created_to.map(Timestamp::into_proto),
            all_users,
        }
    }
}

//! Conversion between protobuf messages and domain types.

use std::time::SystemTime;

use palisade_middleware::{
    auth::{Principal, Subject},
    parse, planted,
    preconditions::{Condition, VersionPreconditions},
    rejection::{Rejection, Violation},
};
use palisade_proto::{
    orders::v1::{self as proto, OrderStatus},
    preconditions::v1::{Preconditions, Versions},
};
use prost::Message;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tonic::{Response, Status as GrpcStatus, metadata::MetadataValue};
use uuid::Uuid;

use super::rejections;
use crate::{
    order::{FailureReason, HistoryEntry, Line, NewOrder, Order, OrderId, ProductSnapshot, Status},
    store::{IdempotencyKey, StoredResponse},
};

/// Response metadata that marks a replay.
const REPLAYED: &str = "idempotency-replayed";

pub(super) fn violation(field: &'static str, code: &'static str, message: &'static str) -> Violation {
    Violation::new(field, code, message)
}

pub(super) fn id(text: &str) -> Result<OrderId, Rejection> {
    parse::parse_uuid(text).map(OrderId::from)
}

/// Parses a status; `None` if it is unspecified. A number that is no status is an error.
pub(super) fn status(number: i32) -> Result<Option<Status>, Rejection> {
    let status =
        OrderStatus::try_from(number).map_err(|_| Rejection::invalid(vec![violation("status", "unknown", "must be an order status")]))?;
    Ok(match status {
        OrderStatus::Unspecified => None,
        OrderStatus::Pending => Some(Status::Pending),
        OrderStatus::ProductReserved => Some(Status::ProductReserved),
        OrderStatus::Confirmed => Some(Status::Confirmed),
        OrderStatus::Failed => Some(Status::Failed),
        OrderStatus::Completed => Some(Status::Completed),
        OrderStatus::Cancelled => Some(Status::Cancelled),
    })
}

/// Converts the conditions of a request. Absent: none.
pub(super) fn preconditions(conditions: Option<Preconditions>) -> VersionPreconditions {
    let condition = |versions: Versions| if versions.any { Condition::Any } else { Condition::Listed(versions.versions) };
    let Preconditions { if_match, if_none_match } = conditions.unwrap_or_default();
    VersionPreconditions { if_match: if_match.map(condition), if_none_match: if_none_match.map(condition) }
}

pub(super) fn proto_status(status: Status) -> OrderStatus {
    match status {
        Status::Pending => OrderStatus::Pending,
        Status::ProductReserved => OrderStatus::ProductReserved,
        Status::Confirmed => OrderStatus::Confirmed,
        Status::Failed => OrderStatus::Failed,
        Status::Completed => OrderStatus::Completed,
        Status::Cancelled => OrderStatus::Cancelled,
    }
}

fn item(line: &Line) -> proto::OrderItem {
    proto::OrderItem {
        product_id: line.product_id.to_string(),
        quantity: line.quantity,
        name: line.snapshot.as_ref().map(|snapshot| snapshot.name.clone()),
        unit_price_minor: line.snapshot.as_ref().map(|snapshot| snapshot.unit_price_minor),
        subtotal_minor: line.subtotal_minor(),
    }
}

pub(super) fn order(order: &Order) -> proto::Order {
    proto::Order {
        id: order.id.to_string(),
        user_id: order.user_id.to_string(),
        items: order.lines.iter().map(item).collect(),
        total_minor: order.total_minor,
        status: proto_status(order.status).into(),
        failure_reason: order.failure_reason.map_or_else(String::new, |reason| reason.as_str().to_owned()),
        created_at: Some(SystemTime::from(order.created_at).into()),
        updated_at: Some(SystemTime::from(order.updated_at).into()),
        version: order.version,
        revision: order.revision.as_ref().map(|revision| proto::Revision {
            items: revision.lines.iter().map(item).collect(),
            requested_at: Some(SystemTime::from(order.updated_at).into()),
        }),
        removed_at: order.removed.as_ref().map(|removal| SystemTime::from(removal.at).into()),
        removed_by: order.removed.as_ref().and_then(|removal| removal.by.as_ref()).map_or_else(String::new, Subject::to_string),
    }
}

pub(super) fn change(entry: HistoryEntry) -> proto::OrderChange {
    proto::OrderChange {
        version: entry.version,
        from: entry.from.map_or(OrderStatus::Unspecified, proto_status).into(),
        to: proto_status(entry.to).into(),
        reason: entry.reason.unwrap_or_default(),
        actor_role: entry.role.map_or_else(String::new, |role| role.as_str().to_owned()),
        actor_subject: entry.subject.map_or_else(String::new, |subject| subject.to_string()),
        actor_service: entry.service.unwrap_or_default(),
        at: Some(SystemTime::from(entry.at).into()),
    }
}

/// The fingerprint covers the merged lines, so that requests with the same meaning match regardless
/// of their spelling. Without a maximum total it is that of the previous release.
pub(super) fn idempotency_key(principal: &Principal, key: String, order: &NewOrder) -> Result<Option<IdempotencyKey>, Rejection> {
    let Some(key) = parse::idempotency_key(key)? else { return Ok(None) };
    let mut digest = Sha256::new();
    digest.update(order.user_id().as_str());
    for line in order.lines() {
        digest.update(line.product_id.as_bytes());
        digest.update(line.quantity.to_be_bytes());
    }
    if let Some(max_total) = order.max_total() {
        digest.update(b"max_total");
        digest.update(max_total.minor().to_be_bytes());
    }
    let subject = if planted!("key of another user") {
        Subject::parse("anyone").unwrap_or(principal.subject.clone())
    } else {
        principal.subject.clone()
    };
    Ok(Some(IdempotencyKey { subject, key, fingerprint: digest.finalize().into() }))
}

/// Builds the response to a create from the order's state at the time of the first response.
pub(super) fn create_response(order: &Order, replayed: bool) -> Result<Response<proto::Order>, GrpcStatus> {
    let mut response = match order.status {
        Status::Failed => Err(GrpcStatus::from(rejections::order_failed(order))),
        _ => Ok(Response::new(self::order(order))),
    };
    if replayed {
        let metadata = response.as_mut().map_or_else(GrpcStatus::metadata_mut, Response::metadata_mut);
        metadata.insert(REPLAYED, MetadataValue::from_static("true"));
    }
    response
}

pub(super) fn encode_stored_response(order: &Order, key: Option<IdempotencyKey>) -> Option<StoredResponse> {
    key.map(|key| StoredResponse { key, bytes: self::order(order).encode_to_vec() })
}

/// Decodes the order of a stored response.
pub(super) fn decode_stored_response(bytes: &[u8]) -> Result<Order, Rejection> {
    let corrupt = || Rejection::internal("corrupt stored response");
    let stored = proto::Order::decode(bytes).map_err(Rejection::internal)?;
    let timestamp = |at: Option<prost_types::Timestamp>| at.and_then(|at| SystemTime::try_from(at).ok()).map(OffsetDateTime::from);
    let lines = stored.items.iter().map(|item| {
        let snapshot =
            item.name.clone().zip(item.unit_price_minor).map(|(name, unit_price_minor)| ProductSnapshot { name, unit_price_minor });
        Some(Line { product_id: Uuid::try_parse(&item.product_id).ok()?, quantity: item.quantity, snapshot })
    });
    Ok(Order {
        id: id(&stored.id)?,
        lines: lines.collect::<Option<_>>().ok_or_else(corrupt)?,
        total_minor: stored.total_minor,
        status: status(stored.status).ok().flatten().ok_or_else(corrupt)?,
        failure_reason: stored.failure_reason.parse::<FailureReason>().ok(),
        created_at: timestamp(stored.created_at).ok_or_else(corrupt)?,
        updated_at: timestamp(stored.updated_at).ok_or_else(corrupt)?,
        user_id: Subject::parse(&stored.user_id).map_err(|_| corrupt())?,
        version: stored.version,
        revision: None,
        removed: None,
    })
}

//! Line of the archive: an order as JSON.

use palisade_middleware::auth::Subject;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    order::{FailureReason, Line, Order, Status},
    store::{RecordedChange, SettledOrder},
};

/// Members that are subjects: of the order, and of an entry of its history.
const SUBJECTS: [&str; 2] = ["userId", "removedBy"];
const HISTORY_SUBJECTS: [&str; 1] = ["actorSubject"];

/// Encodes `orders`, one per line, archived at `now`.
pub(super) fn encode(orders: &[SettledOrder], now: OffsetDateTime) -> Vec<u8> {
    let mut lines = String::new();
    for SettledOrder { order, history } in orders {
        lines.push_str(&line(order, history, now).to_string());
        lines.push('\n');
    }
    lines.into_bytes()
}

fn line(order: &Order, history: &[RecordedChange], now: OffsetDateTime) -> Value {
    json!({
        "id": order.id.to_string(),
        "userId": order.user_id.as_str(),
        "status": order.status.as_str(),
        "failureReason": order.failure_reason.map(FailureReason::as_str),
        "totalMinor": order.total_minor,
        "version": order.version,
        "createdAt": timestamp(order.created_at),
        "updatedAt": timestamp(order.updated_at),
        "removedAt": order.removed.as_ref().map(|removed| timestamp(removed.at)),
        "removedBy": order.removed.as_ref().and_then(|removed| removed.by.as_ref()).map(Subject::as_str),
        "items": order.lines.iter().map(item).collect::<Vec<_>>(),
        "history": history.iter().map(entry).collect::<Vec<_>>(),
        "reservation": reservation(order),
        "archivedAt": timestamp(now),
    })
}

fn item(line: &Line) -> Value {
    let snapshot = line.snapshot.as_ref();
    json!({
        "productId": line.product_id.to_string(),
        "quantity": line.quantity,
        "name": snapshot.map(|snapshot| &snapshot.name),
        "unitPriceMinor": snapshot.map(|snapshot| snapshot.unit_price_minor),
    })
}

fn entry(entry: &RecordedChange) -> Value {
    json!({
        "version": entry.version, "from": entry.from, "to": entry.to, "reason": entry.reason, "actor": entry.actor,
        "actorSubject": entry.actor_subject, "actorService": entry.actor_service,
        "replacedItems": entry.replaced_lines.as_deref().and_then(|lines| serde_json::from_str::<Value>(lines).ok()),
        "at": timestamp(entry.at),
    })
}

/// State of the reservation, as it follows from a settled order.
fn reservation(order: &Order) -> &'static str {
    use FailureReason::{InsufficientStock, PriceChanged, ProductInactive, ProductsUnavailable, ReservationExpired, UnknownProduct};
    match (order.status, order.failure_reason) {
        (Status::Completed, _) => "FULFILLED",
        (_, Some(InsufficientStock | UnknownProduct | ProductInactive | PriceChanged)) => "REFUSED",
        (_, Some(ReservationExpired)) => "EXPIRED",
        (_, Some(ProductsUnavailable) | None) => "RELEASED",
    }
}

fn timestamp(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}

/// Returns `line` with `pseudonym` instead of `subject`, or `None` if it does not name `subject`.
pub(super) fn replace_subject(line: &[u8], subject: &str, pseudonym: &str) -> serde_json::Result<Option<String>> {
    let mut order: Value = serde_json::from_slice(line)?;
    let replace = |value: &mut Value, members: &[&str]| {
        let mut replaced = false;
        for member in members {
            if let Some(member) = value.get_mut(member).filter(|member| member.as_str() == Some(subject)) {
                *member = pseudonym.into();
                replaced = true;
            }
        }
        replaced
    };
    let mut replaced = replace(&mut order, &SUBJECTS);
    for entry in order.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        replaced |= replace(entry, &HISTORY_SUBJECTS);
    }
    Ok(replaced.then(|| order.to_string()))
}

//! Conversions between proto messages and the domain.

use std::time::SystemTime;

use palisade_middleware::{
    auth::Principal,
    cursor::Cursor,
    parse,
    rejection::{Rejection, reasons},
};
use palisade_proto::products::v1::{
    self as proto, FindAllRequest, FindAllResponse, ProductInput, ProductSort, ReservationLine, ReservationState,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tonic::{Response, metadata::MetadataValue};
use uuid::{NoContext, Timestamp, Uuid};

use crate::{
    product::{Filter, Input, Page, Position, Product, Query, Sort, ValidatedProduct},
    reservation::{Line, Reservation, State},
    store::IdempotencyKey,
};

/// Response metadata of a replayed create.
const REPLAYED: &str = "idempotency-replayed";

/// Generates a version 7 UUID with the timestamp `now`.
pub(super) fn new_id(now: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

pub(super) fn input(input: ProductInput) -> Input {
    let ProductInput { name, description, price_minor, quantity, category, is_active } = input;
    Input { name, description, price_minor, quantity, category, is_active }
}

pub(super) fn product(product: &Product) -> proto::Product {
    proto::Product {
        id: product.id.to_string(),
        name: product.name.clone(),
        description: product.description.clone(),
        price_minor: product.price_minor,
        quantity: product.quantity,
        category: product.category.clone(),
        is_active: product.is_active,
        version: product.version,
        created_at: Some(SystemTime::from(product.created_at).into()),
        updated_at: Some(SystemTime::from(product.updated_at).into()),
    }
}

pub(super) fn created(created: &Product, replayed: bool) -> Response<proto::Product> {
    let mut response = Response::new(product(created));
    if replayed {
        response.metadata_mut().insert(REPLAYED, MetadataValue::from_static("true"));
    }
    response
}

/// Returns the key with the fingerprint of the request. The fingerprint covers the meaning (trimmed
/// text), not the spelling.
pub(super) fn idempotency_key(principal: &Principal, key: String, draft: &ValidatedProduct) -> Result<Option<IdempotencyKey>, Rejection> {
    let Some(key) = parse::idempotency_key(key)? else { return Ok(None) };
    let mut digest = Sha256::new();
    for text in [&draft.name, &draft.description, &draft.category] {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    digest.update(draft.price_minor.to_be_bytes());
    digest.update(draft.quantity.to_be_bytes());
    digest.update([u8::from(draft.is_active)]);
    Ok(Some(IdempotencyKey { subject: principal.subject.clone(), key, fingerprint: digest.finalize().into() }))
}

pub(super) fn query(cursor: &Cursor, request: FindAllRequest) -> Result<Query, Rejection> {
    let sort = sort(request.sort());
    let filter = Filter {
        category: request.category,
        is_active: request.is_active,
        text: request.q,
        min_price_minor: request.min_price_minor,
        max_price_minor: request.max_price_minor,
    };
    let after = if request.cursor.is_empty() {
        None
    } else {
        let invalid = || Rejection::new(&reasons::INVALID_CURSOR, "the cursor belongs to another query");
        let bytes = cursor.open(&filter.fingerprint(sort), &request.cursor).map_err(|_| invalid())?;
        Some(Position::from_bytes(sort, &bytes).ok_or_else(invalid)?)
    };
    Query::new(filter, sort, request.limit, after).map_err(|violations| {
        let detail = violations.iter().map(|violation| format!("{} {}", violation.field, violation.message)).collect::<Vec<_>>().join("; ");
        Rejection::new(&reasons::INVALID_PARAMETER, detail)
    })
}

fn sort(sort: ProductSort) -> Sort {
    match sort {
        ProductSort::Unspecified | ProductSort::Newest => Sort::Newest,
        ProductSort::Oldest => Sort::Oldest,
        ProductSort::PriceAsc => Sort::PriceAsc,
        ProductSort::PriceDesc => Sort::PriceDesc,
        ProductSort::NameAsc => Sort::NameAsc,
        ProductSort::NameDesc => Sort::NameDesc,
    }
}

pub(super) fn page(cursor: &Cursor, query: &Query, page: Page) -> FindAllResponse {
    let next = page.next.map(|next| cursor.seal(&query.filter().fingerprint(query.sort()), &next.to_bytes()));
    FindAllResponse { items: page.items.iter().map(product).collect(), next_cursor: next.unwrap_or_default() }
}

pub(super) fn lines(lines: &[ReservationLine]) -> Result<Vec<Line>, Rejection> {
    lines.iter().map(|line| Ok(Line { product_id: parse::parse_uuid(&line.product_id)?, quantity: line.quantity })).collect()
}

pub(super) fn reservation(reservation: &Reservation) -> proto::Reservation {
    let state = match reservation.state {
        State::Held => ReservationState::Held,
        State::Confirmed => ReservationState::Confirmed,
        State::Released => ReservationState::Released,
        State::Expired => ReservationState::Expired,
        State::Refused { .. } => ReservationState::Refused,
    };
    let lines = reservation.lines.iter().map(|line| ReservationLine {
        product_id: line.product_id.to_string(),
        quantity: line.quantity,
        name: line.name.clone(),
        unit_price_minor: line.unit_price_minor,
    });
    proto::Reservation {
        reservation_id: reservation.id.to_string(),
        state: state.into(),
        lines: lines.collect(),
        expires_at: Some(SystemTime::from(reservation.expires_at).into()),
    }
}
